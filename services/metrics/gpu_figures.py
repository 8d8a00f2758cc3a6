"""What was measured of a GPU; None is not known. Pure.

Of a GPU that is lost nothing is known: what its node tells of it is from before, or zero.
"""

from collections.abc import Iterable

from forebay.v1.node_pb2 import Gpu


def utilization_ratio(gpu: Gpu) -> float | None:
    """Share of the last sample period in which a kernel ran; NVML has none of MIG instances."""
    known = not _is_lost(gpu) and not gpu.mig_parent_uuid
    return float(gpu.utilization_ratio) if known else None


def memory_used_bytes(gpu: Gpu) -> int | None:
    """Memory in use."""
    return int(gpu.memory_used_bytes) if memory_total_bytes(gpu) is not None else None


def memory_total_bytes(gpu: Gpu) -> int | None:
    """Memory there is. No GPU has none: zero stands for what could not be read."""
    return None if _is_lost(gpu) else int(gpu.memory_total_bytes) or None


def temperature_celsius(gpu: Gpu) -> float | None:
    """Its temperature."""
    return _if_set(gpu, "temperature_celsius")


def power_watts(gpu: Gpu) -> float | None:
    """Power it draws."""
    return _if_set(gpu, "power_watts")


def power_limit_watts(gpu: Gpu) -> float | None:
    """Power it may draw."""
    return _if_set(gpu, "power_limit_watts")


def utilization_ratios(gpus: Iterable[Gpu]) -> list[float]:
    """Of those of which it is known."""
    return [ratio for gpu in gpus if (ratio := utilization_ratio(gpu)) is not None]


def memory_bytes(gpus: Iterable[Gpu]) -> tuple[int, int]:
    """Memory in use and memory there is, of those of which it is known."""
    known = [gpu for gpu in gpus if memory_total_bytes(gpu) is not None]
    return sum(g.memory_used_bytes for g in known), sum(g.memory_total_bytes for g in known)


def _is_lost(gpu: Gpu) -> bool:
    return bool(gpu.health == Gpu.HEALTH_LOST)


def _if_set(gpu: Gpu, field: str) -> float | None:
    return float(getattr(gpu, field)) if gpu.HasField(field) and not _is_lost(gpu) else None
