"""What is exposed of queues, replicas, nodes and GPUs."""

from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as plain
from prometheus_client.samples import Exemplar, Timestamp

from forebay.v1.node_pb2 import REPLICA_RUNTIME_UNSPECIFIED, Gpu, Histogram, ReplicaStatus
from tests.support.exposed import (
    OPENMETRICS,
    TRACE_ID,
    FixedClock,
    OneQueue,
    exposed,
    exposition_of,
    gpu,
)


def exemplars(text: str) -> dict[tuple[str, str], Exemplar]:
    """Exemplars by metric and upper bound."""
    return {
        (family.name, sample.labels["le"]): sample.exemplar
        for family in openmetrics(text)
        for sample in family.samples
        if sample.exemplar
    }


def test_what_is_not_known_is_absent_rather_than_zero() -> None:
    assert 'forebay_queued_requests{deployment="add"} 3.0' in exposed()
    assert "forebay_queued_requests{" not in exposed(queue=OneQueue(known=False))


def test_requests_and_tasks_are_told_apart() -> None:
    text = exposed()
    for name, count in (
        ("forebay_queued_requests", 3.0),
        ("forebay_queued_tasks", 1.0),
        ("forebay_ongoing_requests", 1.0),
        ("forebay_ongoing_tasks", 1.0),
        ("forebay_dead_tasks_total", 4.0),
        ("forebay_arrivals_per_second", 4.5),
    ):
        assert f'{name}{{deployment="add"}} {count}\n' in text


def test_histograms_are_cumulative() -> None:
    lines = [line for line in exposed().splitlines() if "queue_wait_seconds_bucket" in line]
    assert [line.rsplit(" ", 1)[1] for line in lines] == ["1", "2", "3"]
    assert 'le="+Inf"' in lines[-1]


def test_poison_is_what_agents_gave_up_and_what_no_agent_was_left_to_give_up() -> None:
    assert 'forebay_poison_requests_total{deployment="add"} 3.0' in exposed()


def test_what_is_declared_stands_beside_what_is_measured() -> None:
    values = {
        sample.name: sample.value
        for family in plain(exposed())
        for sample in family.samples
        if sample.labels == {"deployment": "add"}
    }
    assert values["forebay_request_timeout_seconds"] == 60
    assert values["forebay_desired_latency_seconds"] == 2
    assert values["forebay_replica_gpu_memory_declared_bytes"] == 8 << 30
    assert values["forebay_replica_max_gpu_memory_used_bytes"] == 6 << 30


def test_of_a_gpu_that_is_lost_nothing_is_measured_and_its_errors_stay() -> None:
    text = exposed(gpus=[gpu(health=Gpu.HEALTH_LOST)])
    assert 'forebay_gpu_healthy{gpu="GPU-1",node="node-a"} 0.0' in text
    assert 'forebay_gpu_lost{gpu="GPU-1",node="node-a"} 1.0' in text
    assert 'forebay_gpu_xid_errors_total{gpu="GPU-1",node="node-a",xid="31"} 2.0' in text
    assert "forebay_gpu_temperature_celsius{" not in text
    assert "forebay_gpu_memory_used_bytes{" not in text


def test_which_deployments_use_a_gpu_is_told() -> None:
    none = Histogram(bounds_s=[0.1, 1], counts=[0, 0, 0])
    replicas = [
        ReplicaStatus(
            replica_id=f"{name}-{n}",
            deployment=f"deployments/{name}",
            state=ReplicaStatus.STATE_READY,
            gpu_uuids=uuids,
            queue_wait=none,
            service_time=none,
        )
        for n, (name, uuids) in enumerate(
            [("add", ["GPU-1"]), ("add", ["GPU-1"]), ("big", ["GPU-1", "GPU-2"]), ("cpu", [])]
        )
    ]
    text = exposed(replicas=replicas)
    assert [line for line in text.splitlines() if line.startswith("forebay_gpu_replicas{")] == [
        'forebay_gpu_replicas{deployment="add",gpu="GPU-1",node="node-a"} 2.0',
        'forebay_gpu_replicas{deployment="big",gpu="GPU-1",node="node-a"} 1.0',
        'forebay_gpu_replicas{deployment="big",gpu="GPU-2",node="node-a"} 1.0',
    ]


def test_what_nvml_does_not_tell_of_a_gpu_is_absent() -> None:
    text = exposed(gpus=[gpu(mig_parent_uuid="GPU-0")])
    assert "forebay_gpu_utilization_ratio{" not in text
    assert 'forebay_gpu_memory_used_bytes{gpu="GPU-1",node="node-a"}' in text
    text = exposed(gpus=[gpu(memory_total_bytes=0, memory_used_bytes=0)])
    assert "forebay_gpu_memory_used_bytes{" not in text
    assert "forebay_gpu_memory_total_bytes{" not in text


def test_a_gpu_of_an_agent_that_says_nothing_of_health_is_healthy() -> None:
    text = exposed(gpus=[Gpu(uuid="GPU-1", memory_total_bytes=10)])
    assert 'forebay_gpu_healthy{gpu="GPU-1",node="node-a"} 1.0' in text
    for unknown in ("temperature_celsius", "power_watts", "ecc_errors_total", "xid_errors_total"):
        assert f"forebay_gpu_{unknown}{{" not in text


def test_whether_a_runtime_can_be_used_is_absent_where_the_agent_does_not_say() -> None:
    assert "forebay_node_runtime_usable{" not in exposed(runtime=REPLICA_RUNTIME_UNSPECIFIED)


def test_a_runtime_that_cannot_be_used_is_told() -> None:
    text = exposed(runtime_message="the launcher does not answer")
    assert 'forebay_node_runtime_usable{node="node-a"} 0.0' in text
    assert "launcher" not in text


def test_openmetrics_carries_the_trace_of_a_duration() -> None:
    found = exemplars(exposed(OPENMETRICS, traced=True))
    expected = Exemplar({"trace_id": TRACE_ID}, 0.7, Timestamp(1000, 0))
    assert found == {
        ("forebay_queue_wait_seconds", "1.0"): expected,
        ("forebay_service_time_seconds", "1.0"): expected,
    }


def test_openmetrics_without_traces_has_no_exemplars() -> None:
    assert not exemplars(exposed(OPENMETRICS))


def test_plain_text_has_no_exemplars() -> None:
    text = exposed("text/plain", traced=True)
    assert TRACE_ID not in text
    assert list(plain(text))


def test_both_forms_say_the_same() -> None:
    def samples(families: object) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
        return {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in families
            for sample in family.samples
            if not sample.name.startswith("process_")
        }

    assert samples(openmetrics(exposed(OPENMETRICS))) == samples(plain(exposed()))


class MovingClock(FixedClock):
    """A clock whose wall clock may be set."""

    set_by_s = 0.0

    def wall_s(self) -> float:
        return super().wall_s() + self.set_by_s


def test_the_instant_of_an_exemplar_stays_unless_the_wall_clock_is_set() -> None:
    clock = MovingClock()
    told = exposition_of(traced=True, clock=clock)

    def instants() -> set[float]:
        look = told.look()
        return {at_s for _, _, at_s in look.queue_wait["add"].exemplars.values()}

    assert instants() == {1000.0}
    clock.set_by_s = 0.3
    assert instants() == {1000.0}
    clock.set_by_s = 600.0
    assert instants() == {1600.0}
