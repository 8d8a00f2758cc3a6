"""What an agent writes down of a replica's container, for itself after a restart.

It holds the key to the replica's Triton, so only this user may read it.
"""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

RECORD = "container.json"


@dataclass(frozen=True, slots=True)
class ContainerRecord:
    """A replica's container.

    Attributes:
        access_key: what callers of its Triton must show.
        image_id: its image.
        container_id: its id; empty until the launcher has started it.
        address: where its Triton listens, as host:port.
        startup_s: time from its start to its replica's first READY; 0 before.
    """

    access_key: str
    image_id: str
    container_id: str = ""
    address: str = ""
    startup_s: float = 0.0

    @classmethod
    def read(cls, directory: Path) -> "ContainerRecord | None":
        """The record in a replica's directory, if there is one of a container that was started."""
        try:
            record = cls(**json.loads((directory / RECORD).read_text()))
        except (OSError, ValueError, TypeError):
            return None
        return record if record.container_id and record.access_key else None

    def write(self, directory: Path) -> None:
        """Writes it so that a reader finds the old or the new one. Blocks shortly.

        Raises:
            OSError: if it cannot be written.
        """
        temporary = directory / f".{RECORD}"
        temporary.unlink(missing_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            json.dump(asdict(self), file)
        temporary.replace(directory / RECORD)
