"""Pure: an entry of a bucket, for those who read what is kept and know nothing of NATS."""

from typing import Protocol


class Entry(Protocol):
    """Something that is kept."""

    @property
    def value(self) -> bytes:
        """The serialised message."""
        ...

    @property
    def revision(self) -> int:
        """Rises with every change."""
        ...
