"""Whether a router's shared memory is within reach: only on the router's own host."""

from pathlib import Path

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108  POSIX shared memory on Linux


def has_object(name: str) -> bool:
    """Whether there is a shared memory object of that name; names are random, never guessed."""
    return bool(name) and "/" not in name and (SHARED_MEMORY / name).exists()
