"""Pure: a replica's container in words of ours, from what the engine says of it."""

from collections.abc import Mapping
from typing import Any

from forebay.v1.launcher_pb2 import ReplicaContainer
from services.launcher import reasons
from services.launcher.template import GRPC_PORT, LABEL_REPLICA

MAX_PROCESSES = 256

_STATES = {
    "created": ReplicaContainer.STATE_CREATED,
    "running": ReplicaContainer.STATE_RUNNING,
    # The template restarts nothing; an engine that says so anyway has it running soon.
    "restarting": ReplicaContainer.STATE_RUNNING,
    "paused": ReplicaContainer.STATE_PAUSED,
    "exited": ReplicaContainer.STATE_EXITED,
    "removing": ReplicaContainer.STATE_EXITED,
    "dead": ReplicaContainer.STATE_EXITED,
}

LIVE = frozenset({ReplicaContainer.STATE_RUNNING, ReplicaContainer.STATE_PAUSED})
ENDED = frozenset({ReplicaContainer.STATE_EXITED, ReplicaContainer.STATE_GONE})


def belongs(inspected: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """Whether a container carries all of some labels."""
    found = (inspected.get("Config") or {}).get("Labels") or {}
    return all(found.get(key) == value for key, value in labels.items())


def of_inspected(
    inspected: Mapping[str, Any], network: str, killed_in: bool = False, stopping: bool = False
) -> ReplicaContainer:
    """What a replica's container is doing.

    Args:
        inspected: what the engine's ContainerInspect says.
        network: the replicas' network.
        killed_in: the kernel was seen to kill a process in it for want of memory.
        stopping: the launcher itself ends it.
    """
    state = inspected["State"]
    found = ReplicaContainer(
        replica_id=inspected["Config"]["Labels"].get(LABEL_REPLICA, ""),
        container_id=inspected["Id"],
        state=_STATES.get(state["Status"], ReplicaContainer.STATE_UNKNOWN),
        image_id=inspected["Image"],
        out_of_memory=bool(state.get("OOMKilled")) or killed_in,
    )
    limit_bytes = int((inspected.get("HostConfig") or {}).get("Memory") or 0)
    if found.state in LIVE:
        networks = (inspected.get("NetworkSettings") or {}).get("Networks") or {}
        address = (networks.get(network) or {}).get("IPAddress")
        if address:
            found.address = f"{address}:{GRPC_PORT}"
        if found.state == ReplicaContainer.STATE_PAUSED:
            found.message = (
                "it was frozen from outside (`docker pause`); `docker unpause` lets it go on"
            )
        elif killed_in:
            found.message = reasons.of_memory_kill(limit_bytes)
    elif found.state == ReplicaContainer.STATE_EXITED:
        found.exit_code = int(state.get("ExitCode") or 0)
        ended = reasons.Exit(
            found.exit_code, found.out_of_memory, limit_bytes, str(state.get("Error") or "")
        )
        found.message = reasons.STOPPED if stopping else reasons.of_exit(ended)
    elif found.state == ReplicaContainer.STATE_CREATED:
        found.message = "it is made and not started yet"
    return found


def gone(replica_id: str) -> ReplicaContainer:
    """There is no container of that replica."""
    return ReplicaContainer(
        replica_id=replica_id,
        state=ReplicaContainer.STATE_GONE,
        message="there is no container of this replica: it was never started, or was removed",
    )


def unknown(replica_id: str, message: str) -> ReplicaContainer:
    """The engine does not say what the container is doing.

    Args:
        replica_id: the replica.
        message: why not.
    """
    return ReplicaContainer(
        replica_id=replica_id, state=ReplicaContainer.STATE_UNKNOWN, message=message
    )


def same(one: ReplicaContainer | None, other: ReplicaContainer) -> bool:
    """Whether two looks at a container differ in nothing but what it uses."""
    if one is None:
        return False
    left, right = ReplicaContainer(), ReplicaContainer()
    left.CopyFrom(one)
    right.CopyFrom(other)
    for look in (left, right):
        look.memory_used_bytes = 0
        del look.process_ids[:]
    return left == right


def memory_used_bytes(stats: Mapping[str, Any]) -> int:
    """Memory that a container uses, without the files that the kernel keeps for it; 0 if unknown.

    The usage of the control group less the lists of file pages, which the kernel gives back when
    memory is wanted. Shared memory and /tmp are not on those lists and so are counted. Control
    groups of version 1 have the sums over their children under `total_…`.

    Args:
        stats: what the engine's ContainerStats says.
    """
    memory = stats.get("memory_stats") or {}
    usage = int(memory.get("usage") or 0)
    parts = memory.get("stats") or {}
    files = sum(
        int(parts.get(f"total_{name}", parts.get(name)) or 0)
        for name in ("active_file", "inactive_file")
    )
    return max(0, usage - files)
