"""The highest epoch and revision this node has accepted, kept over restarts of the agent.

Without it, an agent that starts while an autoscaler that was replaced still answers would do what
that one says, on GPUs that the new one has given to others.
"""

import json
from pathlib import Path

import structlog

from services.node_agent.reconcile import AssignedSet
from services.runtime.process import write_atomically

log = structlog.get_logger()

FILE = "accepted.json"


class AcceptedWord:
    """One small file in the state directory of the agent."""

    def __init__(self, state_dir: Path) -> None:
        """Nothing is read yet."""
        self.file = state_dir / FILE

    def read(self) -> AssignedSet | None:
        """The epoch and revision of what was accepted last, without its assignments.

        None if nothing was accepted yet, or the file is damaged, which is logged.
        """
        try:
            kept = json.loads(self.file.read_text())
            return AssignedSet((), int(kept["revision"]), int(kept["epoch"]))
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError, OSError) as error:
            log.warning("accepted.unreadable", file=str(self.file), error=str(error))
            return None

    def keep(self, accepted: AssignedSet) -> None:
        """Notes what is about to be applied.

        It is applied even if that fails: on a full disk, too, the mesh is served.
        """
        word = {"epoch": accepted.epoch, "revision": accepted.revision}
        try:
            write_atomically(self.file, json.dumps(word))
        except OSError as error:
            log.error("accepted.not_kept", file=str(self.file), error=str(error))
