"""No absurd number gets in, whichever field it is in."""

import math

import pytest
from google.protobuf.duration_pb2 import Duration

from forebay.v1.node_pb2 import Gpu, Histogram, NodeRegistration, NodeReport, ReplicaStatus
from services.metrics.nodes import NodeTable
from services.metrics.refusals import Refusals
from services.metrics.report_check import Refusal, ReportError

BOUNDS_S = [0.1, 1.0]


def replica(**fields: object) -> ReplicaStatus:
    return ReplicaStatus(**{"replica_id": "add-1", "deployment": "deployments/add", **fields})


def of_replica(**fields: object) -> NodeReport:
    return NodeReport(replicas=[replica(**fields)])


def of_gpu(**fields: object) -> NodeReport:
    return NodeReport(gpus=[Gpu(**{"uuid": "GPU-1", "memory_total_bytes": 100, **fields})])


def of_process(**fields: object) -> NodeReport:
    return of_gpu(processes=[{"process_id": 7, **fields}])


def of_histogram(**fields: object) -> NodeReport:
    made = Histogram(**{"bounds_s": BOUNDS_S, "counts": [0, 0, 0], **fields})
    return of_replica(service_time=made)


def take(*reports: NodeReport) -> None:
    table = NodeTable(5.0)
    table.register(0.0, NodeRegistration(node="nodes/node-a", instance_id="1"))
    for report in reports:
        table.report(0.0, 1000.0, "node-a", report)


@pytest.mark.parametrize(
    ("report", "reason", "complaint"),
    [
        (NodeReport(slot_count=-1), Refusal.NEGATIVE, "slot_count = -1: it must be 0 to 1024"),
        (NodeReport(slot_count=1025), Refusal.TOO_LARGE, "slot_count = 1025"),
        (NodeReport(cpus=math.nan), Refusal.NOT_FINITE, "cpus = nan"),
        (NodeReport(cpus=math.inf), Refusal.NOT_FINITE, "cpus = inf"),
        (NodeReport(cpus=4097), Refusal.TOO_LARGE, "cpus"),
        (NodeReport(memory_bytes=-1), Refusal.NEGATIVE, "memory_bytes"),
        (NodeReport(memory_bytes=(1 << 50) + 1), Refusal.TOO_LARGE, "memory_bytes"),
        (NodeReport(custom={"licence": math.nan}), Refusal.NOT_FINITE, "custom.*licence"),
        (NodeReport(custom={"licence": -1}), Refusal.NEGATIVE, "custom.*licence"),
        (NodeReport(custom={str(i): 1 for i in range(65)}), Refusal.TOO_MANY, "custom: 65"),
        (NodeReport(custom={"x" * 200: 1}), Refusal.TOO_LARGE, "length of a name"),
        (NodeReport(volumes=["v"] * 65), Refusal.TOO_MANY, "volumes: 65"),
        (NodeReport(volumes=["a.b"]), Refusal.NAME, "volumes: 'a.b' cannot name a volume"),
        (NodeReport(volumes=["a", "a"]), Refusal.DUPLICATE, "volumes.*not unique"),
        (NodeReport(read_only_volumes=["*"]), Refusal.NAME, "cannot name a volume"),
        (NodeReport(applied_revision=-1), Refusal.NEGATIVE, "applied_revision"),
        (NodeReport(gpu_message="x" * 100_000), Refusal.TOO_LARGE, "gpu_message"),
        (NodeReport(gpus=[Gpu(uuid=str(i)) for i in range(300)]), Refusal.TOO_MANY, "gpus: 300"),
        (NodeReport(gpus=[Gpu(uuid="a"), Gpu(uuid="a")]), Refusal.DUPLICATE, "gpus.*not unique"),
        (NodeReport(gpus=[Gpu()]), Refusal.DUPLICATE, "empty"),
        (of_gpu(memory_total_bytes=-1), Refusal.NEGATIVE, "memory_total_bytes"),
        (of_gpu(memory_used_bytes=111), Refusal.TOO_LARGE, "memory_used_bytes"),
        (of_gpu(memory_used_bytes=-1), Refusal.NEGATIVE, "memory_used_bytes"),
        (of_gpu(utilization_ratio=50), Refusal.TOO_LARGE, "utilization_ratio"),
        (of_gpu(utilization_ratio=-1), Refusal.NEGATIVE, "utilization_ratio"),
        (of_gpu(utilization_ratio=math.nan), Refusal.NOT_FINITE, "utilization_ratio"),
        (of_gpu(temperature_celsius=math.nan), Refusal.NOT_FINITE, "temperature_celsius = nan"),
        (of_gpu(temperature_celsius=-1), Refusal.NEGATIVE, "temperature_celsius"),
        (of_gpu(power_watts=math.inf), Refusal.NOT_FINITE, "power_watts"),
        (of_gpu(power_limit_watts=1e9), Refusal.TOO_LARGE, "power_limit_watts"),
        (of_gpu(ecc_corrected_count=-1), Refusal.NEGATIVE, "ecc_corrected_count"),
        (of_gpu(ecc_uncorrected_count=1 << 60), Refusal.TOO_LARGE, "ecc_uncorrected_count"),
        (of_gpu(product_name="x" * 257), Refusal.TOO_LARGE, "length of .*product_name"),
        (of_gpu(mig_parent_uuid="x" * 257), Refusal.TOO_LARGE, "length of .*mig_parent_uuid"),
        (of_gpu(health_message="x" * 100_000), Refusal.TOO_LARGE, "length of .*health_message"),
        (of_gpu(xid_counts=dict.fromkeys(range(33), 1)), Refusal.TOO_MANY, "xid_counts: 33"),
        (of_gpu(xid_counts={79: -1}), Refusal.NEGATIVE, r"xid_counts\[79\] = -1"),
        (of_gpu(xid_counts={-1: 1}), Refusal.NEGATIVE, "xid_counts: a number = -1"),
        (of_gpu(processes=[{}] * 65), Refusal.TOO_MANY, "processes: 65"),
        (of_process(process_id=-1), Refusal.NEGATIVE, "processes: process_id = -1"),
        (of_process(memory_used_bytes=-1), Refusal.NEGATIVE, "memory_used_bytes = -1"),
        (of_process(memory_used_bytes=1 << 60), Refusal.TOO_LARGE, "memory_used_bytes"),
        (of_process(replica_id="x" * 300), Refusal.TOO_LARGE, "length of .*replica_id"),
        (of_replica(gpu_memory_used_bytes=-1), Refusal.NEGATIVE, "gpu_memory_used_bytes"),
        (of_replica(gpu_memory_used_bytes=1 << 60), Refusal.TOO_LARGE, "gpu_memory_used_bytes"),
        (of_replica(image_id="x" * 300), Refusal.TOO_LARGE, "length of .*image_id"),
        (NodeReport(runtime_message="x" * 100_000), Refusal.TOO_LARGE, "runtime_message"),
        (NodeReport(replicas=[replica(), replica()]), Refusal.DUPLICATE, "replicas.*not unique"),
        (of_replica(deployment="deployments/a.b"), Refusal.NAME, "deployment"),
        (of_replica(ongoing_count=-1), Refusal.NEGATIVE, "ongoing_count"),
        (
            of_replica(max_ongoing_requests=5, ongoing_count=10 * 5 + 1025),
            Refusal.TOO_LARGE,
            "ongoing_count",
        ),
        (of_replica(max_ongoing_requests=-1), Refusal.NEGATIVE, "max_ongoing_requests"),
        (of_replica(gpus=math.nan), Refusal.NOT_FINITE, "gpus = nan"),
        (of_replica(gpus=1e9), Refusal.TOO_LARGE, "gpus"),
        (of_replica(gpu_uuids=["GPU"] * 257), Refusal.TOO_MANY, "gpu_uuids"),
        (of_replica(startup_time=Duration(seconds=-1)), Refusal.NEGATIVE, "startup_time"),
        (of_replica(startup_time=Duration(seconds=10**7)), Refusal.TOO_LARGE, "startup_time"),
        (of_replica(start_count=-1), Refusal.NEGATIVE, "start_count"),
        (of_replica(generation=-1), Refusal.NEGATIVE, "generation"),
        (of_replica(resident_memory_bytes=-1), Refusal.NEGATIVE, "resident_memory_bytes"),
        (of_replica(message="x" * 100_000), Refusal.TOO_LARGE, "message"),
        (of_replica(attempt_counts={"ok": -1}), Refusal.NEGATIVE, "attempt_counts"),
        (of_replica(attempt_counts={"ok": 1 << 60}), Refusal.TOO_LARGE, "attempt_counts"),
        (of_histogram(counts=[1]), Refusal.HISTOGRAM, "2 bounds and 1 counts"),
        (of_histogram(counts=[1, -1, 1]), Refusal.HISTOGRAM, "counts"),
        (of_histogram(counts=[1, 1 << 60, 1]), Refusal.HISTOGRAM, "counts"),
        (of_histogram(sum_s=math.nan), Refusal.HISTOGRAM, "sum_s = nan"),
        (of_histogram(sum_s=-0.1), Refusal.HISTOGRAM, "sum_s"),
        (of_histogram(bounds_s=[2, 1]), Refusal.HISTOGRAM, "ascend"),
        (of_histogram(bounds_s=[-1, 1]), Refusal.HISTOGRAM, "ascend"),
        (of_histogram(bounds_s=[1, math.nan]), Refusal.HISTOGRAM, "ascend"),
        (of_histogram(bounds_s=[1, math.inf]), Refusal.HISTOGRAM, "ascend"),
        (
            of_histogram(bounds_s=list(range(201)), counts=[0] * 202),
            Refusal.HISTOGRAM,
            "at most 200",
        ),
    ],
)
def test_refuses_what_cannot_be(report: NodeReport, reason: Refusal, complaint: str) -> None:
    for before in ([], [of_histogram(counts=[1, 2, 3]), of_gpu()]):
        with pytest.raises(ReportError, match=complaint) as caught:
            take(*before, report)
        assert caught.value.reason == reason


def test_takes_what_a_large_machine_reports() -> None:
    take(
        NodeReport(
            slot_count=1024,
            cpus=4096,
            memory_bytes=1 << 50,
            custom={"licence": 1e12},
            gpus=[
                # Reserved memory counts as used; a sample period may be cut short.
                Gpu(
                    uuid=f"GPU-{i}",
                    memory_total_bytes=100,
                    memory_used_bytes=105,
                    utilization_ratio=1.01,
                    health=Gpu.HEALTH_OK,
                    temperature_celsius=104,
                    power_watts=1000,
                    power_limit_watts=1200,
                    ecc_corrected_count=1 << 40,
                    xid_counts=dict.fromkeys(range(32), 1 << 40),
                    processes=[
                        {"process_id": pid, "memory_used_bytes": 1 << 37, "replica_id": "add-1"}
                        for pid in range(64)
                    ],
                )
                # 16 of them, each divided by MIG.
                for i in range(16 * 7)
            ],
            replicas=[
                replica(
                    replica_id=f"add-{i}",
                    ongoing_count=1024,
                    gpus=0.5,
                    startup_time=Duration(seconds=3600),
                    queue_wait=Histogram(bounds_s=BOUNDS_S, counts=[1, 2, 3], sum_s=1.0),
                )
                for i in range(1024)
            ],
        )
    )


def test_a_refused_report_changes_nothing() -> None:
    table = NodeTable(5.0)
    table.register(0.0, NodeRegistration(node="nodes/node-a", instance_id="1"))
    good = of_histogram(counts=[1, 2, 3])
    table.report(0.0, 1000.0, "node-a", good)
    bad = NodeReport(
        slot_count=3, replicas=[replica(replica_id="a"), replica(replica_id="b", gpus=-1)]
    )
    with pytest.raises(ReportError):
        table.report(1.0, 1001.0, "node-a", bad)
    (node,) = table.nodes(1.0)
    assert (node.slot_count, list(node.replicas)) == (0, list(good.replicas))


def test_refusals_are_counted_by_reason_and_said_once_a_minute_for_each_node() -> None:
    refusals = Refusals()
    said = [refusals.add(float(s), "node-a", Refusal.NEGATIVE) for s in range(120)]
    assert [second for second, aloud in enumerate(said) if aloud] == [0, 60]
    assert refusals.add(1.0, "node-b", Refusal.NAME)
    assert refusals.counts[Refusal.NEGATIVE] == 120
    assert refusals.counts[Refusal.NAME] == 1
    assert refusals.counts[Refusal.HISTOGRAM] == 0
