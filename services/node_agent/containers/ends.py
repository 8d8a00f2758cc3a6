"""Pure: why a replica's container does not run, or a process in it died, for a person."""

from forebay.v1.launcher_pb2 import ReplicaContainer


def why(container: ReplicaContainer) -> str:
    """Why a container ended, or a process in it did; empty while all is well with it.

    What the launcher says of an end comes first: it has asked the engine.
    """
    if container.state == ReplicaContainer.STATE_GONE:
        return "its container was removed from outside"
    if container.state == ReplicaContainer.STATE_PAUSED:
        return "its container was paused from outside"
    if container.out_of_memory:
        return container.message or "its container ran out of memory"
    if container.state == ReplicaContainer.STATE_EXITED:
        return container.message or f"its container ended with exit code {container.exit_code}"
    return ""
