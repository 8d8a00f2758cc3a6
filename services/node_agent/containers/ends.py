"""Pure: why a replica's container does not run, in words a person understands."""

from forebay.v1.launcher_pb2 import ReplicaContainer

KILLED = 128 + 9
TERMINATED = 128 + 15

_SIGNALS = {
    4: "an illegal instruction",
    6: "an abort",
    7: "a bus error",
    11: "a segmentation fault",
}

OUT_OF_MEMORY = (
    "its container ran out of memory: declare more memory_bytes in the deployment's resources, or "
    "fewer workers"
)


def why(container: ReplicaContainer) -> str:
    """Why a container ended, or a process in it did; empty while all is well with it.

    What the launcher says comes first: it has asked the engine. Exit codes above 128 are 128 plus a
    signal's number, as shells and Docker give them.
    """
    if container.out_of_memory:
        return OUT_OF_MEMORY
    if container.state == ReplicaContainer.STATE_GONE:
        return container.message or "its container was removed from outside"
    if container.state == ReplicaContainer.STATE_PAUSED:
        return "its container was paused from outside"
    if container.state != ReplicaContainer.STATE_EXITED:
        return ""
    return container.message or _of_code(container.exit_code)


def _of_code(code: int) -> str:
    if code == KILLED:
        return "its container was killed from outside"
    if code == TERMINATED:
        return "its container was stopped from outside"
    if signal := _SIGNALS.get(code - 128):
        return f"its container ended with {signal} (exit code {code})"
    return f"its container ended with exit code {code}"
