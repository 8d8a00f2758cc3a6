"""How much GPU memory replicas use, as people are told of it. Pure.

What is measured wavers, and each new status is a write: a figure that was told stands until it is
STEADY_BYTES off.
"""

from collections.abc import Iterable, Mapping

from services.autoscaler.rollout import Replica
from services.autoscaler.view import ReplicaView

STEADY_BYTES = 64 << 20
MAX_WARNINGS = 20


class GpuUse:
    """GPU memory of each replica over all its GPUs, as last told."""

    def __init__(self) -> None:
        """Nothing was told yet."""
        self._told_bytes: dict[str, int] = {}

    def look(self, seen: Mapping[str, ReplicaView]) -> Mapping[str, int]:
        """What to tell of each replica whose GPU memory is known, in bytes, by id.

        Args:
            seen: replicas on nodes that report, by id; others are forgotten.
        """
        before, told = self._told_bytes, {}
        for replica_id, replica in seen.items():
            if replica.used_bytes is None:
                continue
            used = sum(replica.used_bytes)
            known = before.get(replica_id)
            told[replica_id] = used if known is None or abs(used - known) > STEADY_BYTES else known
        self._told_bytes = told
        return told


def warnings_of(
    replicas: Iterable[Replica],
    used_bytes: Mapping[str, int],
    stranded: Iterable[tuple[str, str]] = (),
) -> list[str]:
    """What is wrong with the use of GPUs, for a person, at most MAX_WARNINGS sentences.

    Args:
        replicas: of one deployment.
        used_bytes: GPU memory that replicas use, by id.
        stranded: its replicas that run on cordoned GPUs, each with the reason.
    """
    said = [f"replica {left} is on a GPU that it must leave: {why}" for left, why in stranded]
    for replica in sorted(replicas, key=lambda r: r.replica_id):
        used = used_bytes.get(replica.replica_id, 0)
        declared = replica.share.demand.gpu_memory_bytes
        if 0 < declared < used:
            said.append(
                f"replica {replica.replica_id} uses {_gib(used, declared)} of GPU memory and "
                f"declares {_gib(declared, used)}: raise resources.gpu_memory_bytes"
            )
    if len(said) > MAX_WARNINGS:
        more = len(said) - MAX_WARNINGS + 1
        said = [*said[: MAX_WARNINGS - 1], f"{more} more replicas are like these"]
    return said


def _gib(size_bytes: int, beside_bytes: int) -> str:
    """Bytes for a person, told apart from other bytes that are not the same."""
    size, beside = size_bytes / 2**30, beside_bytes / 2**30
    return f"{size:.3g} GiB" if f"{size:.3g}" != f"{beside:.3g}" else f"{size:.6g} GiB"
