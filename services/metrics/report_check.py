"""Which reports are taken. Pure.

A report is taken as a whole or not at all: of an agent that counts one thing wrongly, nothing else
can be trusted, and half a report would look like a change. The limits are far above what a machine
can have and far below what would make a decision absurd.
"""

import math
from collections.abc import Sequence
from enum import StrEnum
from functools import lru_cache
from itertools import pairwise

from forebay.v1.node_pb2 import Gpu, NodeReport, ReplicaStatus
from forebay.v1.node_pb2 import Histogram as HistogramMessage
from services.metrics import exemplars
from services.metrics.window import Histogram
from services.wire import names

MAX_REPLICAS = 4096
MAX_GPUS = 256
MAX_HISTOGRAM_BOUNDS = 200
MAX_SLOTS = 1024
MAX_CPUS = 4096.0
MAX_MEMORY_BYTES = 1 << 50
MAX_CUSTOM = 64
MAX_CUSTOM_AMOUNT = 1e15
MAX_CUSTOM_NAME = 128
MAX_VOLUMES = 64
MAX_ONGOING_REQUESTS = 1 << 20
MAX_STARTUP_S = 7 * 86_400.0
MAX_TEXT = 64 * 1024
MAX_NAME = 256
"""Characters of a UUID, a product's name, an id of an image or a replica."""
MAX_CELSIUS = 1000.0
MAX_WATTS = 100_000.0
MAX_PROCESSES = 64
MAX_XIDS = 32
MAX_COUNT = 1 << 53
"""Counts beyond this are no longer exact as a Prometheus sample, which is a double."""

# The same few thousand names come every second; checking one takes 1.5 µs.
deployment_id = lru_cache(maxsize=1 << 16)(names.deployment_id)

UTILIZATION_TOLERANCE = 0.05
MEMORY_TOLERANCE = 1.1
"""NVML reads used and total memory apart from each other, and reserved memory counts in one."""

ONGOING_PER_SLOT = 10
ONGOING_SPARE = 1024


class Refusal(StrEnum):
    """Why a report was refused; a label of `forebay_reports_refused_total`."""

    NAME = "name"
    DUPLICATE = "duplicate"
    NEGATIVE = "negative"
    NOT_FINITE = "not_finite"
    TOO_LARGE = "too_large"
    TOO_MANY = "too_many"
    HISTOGRAM = "histogram"
    UNKNOWN_NODE = "unknown_node"


class ReportError(ValueError):
    """A registration or report that cannot be taken; the text says why.

    Attributes:
        reason: one of a closed set.
    """

    def __init__(self, reason: Refusal, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def check(report: NodeReport) -> None:
    """Checks all but what replicas have counted.

    Raises:
        ReportError: for the first field that no agent in order could send.
    """
    _at_most(len(report.replicas), MAX_REPLICAS, "report.replicas")
    _at_most(len(report.gpus), MAX_GPUS, "report.gpus")
    _at_most(len(report.custom), MAX_CUSTOM, "report.custom")
    _at_most(len(report.volumes), MAX_VOLUMES, "report.volumes")
    _at_most(len(report.read_only_volumes), MAX_VOLUMES, "report.read_only_volumes")
    _within(report.slot_count, MAX_SLOTS, "report.slot_count")
    _within(report.cpus, MAX_CPUS, "report.cpus")
    _within(report.memory_bytes, MAX_MEMORY_BYTES, "report.memory_bytes")
    _within(report.applied_revision, MAX_COUNT, "report.applied_revision")
    _within(len(report.gpu_message), MAX_TEXT, "length of report.gpu_message")
    _within(len(report.runtime_message), MAX_TEXT, "length of report.runtime_message")
    for name, amount in report.custom.items():
        _within(len(name), MAX_CUSTOM_NAME, "length of a name in report.custom")
        _within(amount, MAX_CUSTOM_AMOUNT, f"report.custom[{names.quoted(name)}]")
    for name in (*report.volumes, *report.read_only_volumes):
        _check_volume(name)
    _unique(report.volumes, "report.volumes")
    _unique([gpu.uuid for gpu in report.gpus], "report.gpus")
    _unique([replica.replica_id for replica in report.replicas], "report.replicas")
    for gpu in report.gpus:
        _check_gpu(gpu)
    for replica in report.replicas:
        _check_replica(replica)


def histogram(message: HistogramMessage, before: Histogram | None, field: str) -> Histogram | None:
    """A histogram as a plain value; None if it has no buckets.

    Args:
        message: as reported.
        before: the one reported before; what is equal is neither checked nor kept twice.
        field: its name, for the error.

    Raises:
        ReportError: if it is not a histogram.
    """
    counts, bounds_s = tuple(message.counts), tuple(message.bounds_s)
    if not counts and not bounds_s:
        return None
    if before is not None and bounds_s == before.bounds_s:
        bounds_s = before.bounds_s
        if counts == before.counts:
            return before
    else:
        _check_bounds(bounds_s, field)
    if len(counts) != len(bounds_s) + 1:
        raise ReportError(
            Refusal.HISTOGRAM,
            f"{field}: {len(bounds_s)} bounds and {len(counts)} counts; there must be one count "
            "more than bounds",
        )
    if min(counts) < 0 or max(counts) > MAX_COUNT:
        raise ReportError(Refusal.HISTOGRAM, f"{field}.counts: each must be 0 to {MAX_COUNT}")
    if not 0 <= message.sum_s < math.inf:
        raise ReportError(Refusal.HISTOGRAM, f"{field}.sum_s = {message.sum_s}: must be 0 or more")
    try:
        traced = exemplars.read(message)
    except ValueError as error:
        raise ReportError(Refusal.HISTOGRAM, f"{field}.{error}") from error
    return Histogram(bounds_s, counts, message.sum_s, traced)


def _check_bounds(bounds_s: tuple[float, ...], field: str) -> None:
    if len(bounds_s) > MAX_HISTOGRAM_BOUNDS:
        raise ReportError(
            Refusal.HISTOGRAM,
            f"{field}: {len(bounds_s)} bounds; at most {MAX_HISTOGRAM_BOUNDS} are taken",
        )
    # Not NaN, which every comparison denies.
    ascending = all(low < high for low, high in pairwise((*bounds_s, math.inf)))
    if not ascending or not all(bound_s >= 0 for bound_s in bounds_s):
        raise ReportError(Refusal.HISTOGRAM, f"{field}.bounds_s must ascend from at least 0")


def _check_gpu(gpu: Gpu) -> None:
    total, used, utilization = gpu.memory_total_bytes, gpu.memory_used_bytes, gpu.utilization_ratio
    # All at once first, as with replicas. What is not set is 0, which is legal.
    if (
        0 <= total <= MAX_MEMORY_BYTES
        and 0 <= used <= total * MEMORY_TOLERANCE
        and -UTILIZATION_TOLERANCE <= utilization <= 1 + UTILIZATION_TOLERANCE
        and 0 <= gpu.temperature_celsius <= MAX_CELSIUS
        and 0 <= gpu.power_watts <= MAX_WATTS
        and 0 <= gpu.power_limit_watts <= MAX_WATTS
        and 0 <= gpu.ecc_corrected_count <= MAX_COUNT
        and 0 <= gpu.ecc_uncorrected_count <= MAX_COUNT
        and len(gpu.uuid) <= MAX_NAME
        and len(gpu.product_name) <= MAX_NAME
        and len(gpu.mig_parent_uuid) <= MAX_NAME
        and len(gpu.health_message) <= MAX_TEXT
    ):
        if gpu.xid_counts or gpu.processes:
            _check_gpu_lists(gpu)
        return
    where = f"report.gpus[{names.quoted(gpu.uuid)}]"
    _within(total, MAX_MEMORY_BYTES, f"{where}.memory_total_bytes")
    _within(used, total * MEMORY_TOLERANCE, f"{where}.memory_used_bytes")
    _within(gpu.temperature_celsius, MAX_CELSIUS, f"{where}.temperature_celsius")
    _within(gpu.power_watts, MAX_WATTS, f"{where}.power_watts")
    _within(gpu.power_limit_watts, MAX_WATTS, f"{where}.power_limit_watts")
    _within(gpu.ecc_corrected_count, MAX_COUNT, f"{where}.ecc_corrected_count")
    _within(gpu.ecc_uncorrected_count, MAX_COUNT, f"{where}.ecc_uncorrected_count")
    for field in ("uuid", "product_name", "mig_parent_uuid"):
        _within(len(getattr(gpu, field)), MAX_NAME, f"length of {where}.{field}")
    _within(len(gpu.health_message), MAX_TEXT, f"length of {where}.health_message")
    # What is far above would be a percentage in place of a ratio.
    _within(utilization, 1.0, f"{where}.utilization_ratio")


def _check_gpu_lists(gpu: Gpu) -> None:
    where = f"report.gpus[{names.quoted(gpu.uuid)}]"
    _at_most(len(gpu.xid_counts), MAX_XIDS, f"{where}.xid_counts")
    for xid, count in gpu.xid_counts.items():
        _within(xid, MAX_COUNT, f"{where}.xid_counts: a number")
        _within(count, MAX_COUNT, f"{where}.xid_counts[{xid}]")
    _at_most(len(gpu.processes), MAX_PROCESSES, f"{where}.processes")
    for process in gpu.processes:
        of_process = f"{where}.processes[{process.process_id}]"
        _within(process.process_id, MAX_COUNT, f"{where}.processes: process_id")
        _within(process.memory_used_bytes, MAX_MEMORY_BYTES, f"{of_process}.memory_used_bytes")
        _within(len(process.replica_id), MAX_NAME, f"length of {of_process}.replica_id")


def _check_volume(name: str) -> None:
    if not names.is_id(name):
        said = f"report.volumes: {names.quoted(name)} cannot name a volume"
        raise ReportError(Refusal.NAME, said)


def _check_replica(replica: ReplicaStatus) -> None:
    try:
        deployment_id(replica.deployment)
    except names.InvalidNameError as error:
        where = f"report.replicas[{names.quoted(replica.replica_id)}]"
        raise ReportError(Refusal.NAME, f"{where}.deployment: {error}") from error
    slots, ongoing = replica.max_ongoing_requests, replica.ongoing_count
    gpus, memory, starts = replica.gpus, replica.resident_memory_bytes, replica.start_count
    gpu_memory = replica.gpu_memory_used_bytes
    startup_s = (
        replica.startup_time.ToNanoseconds() / 1e9 if replica.HasField("startup_time") else 0
    )
    # All at once first: twenty replicas a second from each of a thousand agents pass here, and
    # none of them is wrong.
    if (
        0 <= slots <= MAX_ONGOING_REQUESTS
        and 0 <= ongoing <= ONGOING_PER_SLOT * slots + ONGOING_SPARE
        and 0 <= gpus <= MAX_GPUS
        and 0 <= memory <= MAX_MEMORY_BYTES
        and 0 <= gpu_memory <= MAX_MEMORY_BYTES
        and starts >= 0
        and 0 <= startup_s <= MAX_STARTUP_S
        and len(replica.gpu_uuids) <= MAX_GPUS
        and len(replica.message) <= MAX_TEXT
        and replica.generation >= 0
        and len(replica.image_id) <= MAX_NAME
    ):
        return
    where = f"report.replicas[{names.quoted(replica.replica_id)}]"
    _within(slots, MAX_ONGOING_REQUESTS, f"{where}.max_ongoing_requests")
    _within(ongoing, ONGOING_PER_SLOT * slots + ONGOING_SPARE, f"{where}.ongoing_count")
    _within(gpus, MAX_GPUS, f"{where}.gpus")
    _within(memory, MAX_MEMORY_BYTES, f"{where}.resident_memory_bytes")
    _within(gpu_memory, MAX_MEMORY_BYTES, f"{where}.gpu_memory_used_bytes")
    _within(len(replica.image_id), MAX_NAME, f"length of {where}.image_id")
    _within(starts, MAX_COUNT, f"{where}.start_count")
    _within(startup_s, MAX_STARTUP_S, f"{where}.startup_time")
    _within(len(replica.message), MAX_TEXT, f"length of {where}.message")
    _within(replica.generation, MAX_COUNT, f"{where}.generation")
    _at_most(len(replica.gpu_uuids), MAX_GPUS, f"{where}.gpu_uuids")


def _within(value: float, most: float, field: str) -> None:
    if 0 <= value <= most:
        return
    said = f"{field} = {value}: it must be 0 to {most}"
    if not math.isfinite(value):
        raise ReportError(Refusal.NOT_FINITE, said)
    raise ReportError(Refusal.NEGATIVE if value < 0 else Refusal.TOO_LARGE, said)


def _at_most(count: int, most: int, field: str) -> None:
    if count > most:
        raise ReportError(Refusal.TOO_MANY, f"{field}: {count}, above {most}")


def _unique(ids: Sequence[str], field: str) -> None:
    if len(set(ids)) == len(ids) and "" not in ids:
        return
    seen: set[str] = set()
    for found in ids:
        if not found or found in seen:
            where = f"{field}[{names.quoted(found)}]"
            raise ReportError(Refusal.DUPLICATE, f"{where}: the id is empty or not unique")
        seen.add(found)
