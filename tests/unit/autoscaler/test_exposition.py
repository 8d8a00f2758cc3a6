"""What an autoscaler tells Prometheus."""

from prometheus_client import CollectorRegistry, generate_latest

from forebay.v1.deployment_pb2 import DeploymentStatus
from forebay.v1.scaling_pb2 import ScaleDecision
from services.autoscaler.decision_counts import Counted, DecisionCounts
from services.autoscaler.exposition import AutoscalerCollector, Look

STATUS = DeploymentStatus(
    target_replica_count=3, assigned_replica_count=2, unplaced_replica_count=1
).SerializeToString()


def exposed(look: Look) -> str:
    registry = CollectorRegistry()
    registry.register(AutoscalerCollector(lambda: look))
    return generate_latest(registry).decode()


def leading(sees: bool = True, decisions: Counted | None = None) -> Look:
    return Look(True, True, 0.5, sees, {"add": STATUS}, {"add": decisions or Counted()})


def decided(before: int, after: int, applied: bool = True, at_s: int = 100) -> ScaleDecision:
    decision = ScaleDecision(target_before=before, target_after=after, applied=applied)
    decision.decide_time.FromSeconds(at_s)
    return decision


def test_the_leader_says_what_is_decided_and_bound() -> None:
    text = exposed(leading())
    for line in (
        "forebay_autoscaler_leading 1.0",
        'forebay_target_replicas{deployment="add"} 3.0',
        'forebay_assigned_replicas{deployment="add"} 2.0',
        'forebay_unplaced_replicas{deployment="add"} 1.0',
    ):
        assert f"{line}\n" in text


def test_a_standby_says_only_that_it_does_not_lead() -> None:
    text = exposed(Look(True, False, None, False, {}, {}))
    assert "forebay_autoscaler_leading 0.0\n" in text
    assert "{" not in "".join(line for line in text.splitlines() if not line.startswith("#"))
    assert "\nforebay_autoscaler_snapshot_age_seconds " not in text


def test_what_has_no_place_is_not_known_without_a_view_of_the_mesh() -> None:
    text = exposed(leading(sees=False))
    assert 'forebay_target_replicas{deployment="add"} 3.0' in text
    assert "forebay_unplaced_replicas{" not in text


def test_decisions_are_counted_from_zero_in_each_direction() -> None:
    text = exposed(leading())
    for direction in ("up", "down", "hold"):
        assert f'{{deployment="add",direction="{direction}"}} 0.0' in text
    assert "forebay_last_scale_decision_time_seconds{" not in text


def test_directions_are_those_of_the_target() -> None:
    counts = DecisionCounts()
    for decision in (
        decided(0, 3),
        decided(3, 1),
        decided(1, 1),
        decided(1, 5, applied=False),
        decided(1, 2, at_s=160),
    ):
        counts.count("add", decision)
    assert counts.of(["add"])["add"] == Counted(2, 1, 2, 160.0)
    text = exposed(leading(decisions=counts.of(["add"])["add"]))
    assert 'forebay_last_scale_decision_time_seconds{deployment="add"} 160.0' in text


def test_decisions_about_a_deployment_that_is_gone_are_forgotten() -> None:
    counts = DecisionCounts()
    for name in ("gone", "there"):
        counts.count(name, decided(0, 1))
    counts.keep({"there"})
    assert counts.of(["gone", "there"]) == {
        "gone": Counted(),
        "there": Counted(up=1, last_s=100.0),
    }
