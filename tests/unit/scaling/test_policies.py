"""Each policy's formula, and the scenarios it is known by."""

import math

import pytest

from forebay.v1.scaling_pb2 import Policy
from services.autoscaler.scaling.declared import policy_of
from services.autoscaler.scaling.policies import Capacity, Wish
from tests.unit.scaling.walk import custom, depth, latency, max_of, ongoing, seen, size


def wish(policy: Policy, slots: int = 1, at_once: bool = False, **signals: object) -> Wish:
    return policy_of(policy, slots).wish(seen(**signals), at_once)


@pytest.mark.parametrize(
    ("tasks", "queued", "running", "replicas"),
    [
        (30, 0, 0, 0),
        (30, 1, 0, 1),
        (30, 30, 0, 1),
        (30, 31, 0, 2),
        (30, 20, 11, 2),
        (30, 60, 0, 2),
        (30, 61, 0, 3),
        (3, 3, 0, 1),
        (3, 4, 0, 2),
        (3, 7, 0, 3),
        (3, 0, 10, 4),
    ],
)
def test_queue_depth_is_the_load_by_tasks_per_replica(
    tasks: int, queued: int, running: int, replicas: int
) -> None:
    asked = wish(depth(tasks), queued=queued, ongoing=running)
    assert (asked.more, asked.fewer) == (replicas, replicas)


@pytest.mark.parametrize(
    ("desired_s", "service_s", "slots", "load", "replicas"),
    [
        # Three requests of a minute, half a minute to wait: none may wait for another.
        (30, 60, 1, 3, 3),
        (30, None, 1, 3, 3),
        (30, None, 2, 3, 2),
        # The second turn starts at 30 s exactly.
        (30, 30, 1, 3, 2),
        (30, 29, 1, 4, 2),
        (30, 10, 1, 4, 1),
        (30, 10, 1, 5, 2),
        (30, 10, 4, 17, 2),
        (0.3, 0.1, 1, 4, 1),
        (30, 10, 1, 0, 0),
        (30, 0.0, 1, 1000, 1),
    ],
)
def test_request_latency_starts_the_last_request_in_time(
    desired_s: float, service_s: float | None, slots: int, load: int, replicas: int
) -> None:
    asked = wish(latency(desired_s), slots, queued=load, service_time_s=service_s)
    assert asked.more == replicas


@pytest.mark.parametrize("service_s", [0.7, 1.0, 3.3, 9.9, 10.1, 60.0])
@pytest.mark.parametrize("slots", [1, 3])
def test_request_latency_is_what_running_the_queue_shows(service_s: float, slots: int) -> None:
    for load in range(1, 60):
        replicas = wish(latency(10), slots, queued=load, service_time_s=service_s).more
        last_start_s = [
            (load - 1) // (slots * count) * service_s for count in (replicas, replicas - 1) if count
        ]
        assert last_start_s[0] <= 10
        assert len(last_start_s) == 1 or last_start_s[1] > 10


def test_request_latency_reckons_with_the_assumed_time_until_one_is_measured() -> None:
    policy = latency(30, assumed_s=10)
    assert wish(policy, queued=8).more == 2
    assert wish(policy, queued=8, service_time_s=60.0).more == 8


def test_request_latency_keeps_replicas_that_a_slightly_longer_service_time_needs() -> None:
    asked = wish(latency(30), queued=8, service_time_s=9.5)
    assert (asked.more, asked.fewer) == (2, 3)


@pytest.mark.parametrize(
    ("waiting", "slots", "load", "replicas"),
    [
        (1, 1, 10, 9),
        (1, 1, 1, 1),
        (1, 1, 2, 1),
        (1, 1, 3, 2),
        (2, 1, 2, 1),
        (2, 1, 3, 1),
        (2, 1, 4, 2),
        (0, 1, 2, 2),
        (1, 4, 10, 3),
        (5, 1, 0, 0),
    ],
)
def test_queue_size_leaves_so_many_waiting(
    waiting: int, slots: int, load: int, replicas: int
) -> None:
    asked = wish(size(waiting), slots, queued=load)
    assert (asked.more, asked.fewer) == (replicas, replicas)


@pytest.mark.parametrize(
    ("target", "mean", "replicas"),
    [(1, 10.0, 10), (1, 10.2, 11), (2, 10.0, 5), (0.5, 3.0, 6), (0.1, 0.3, 3), (1, 0.0, 0)],
)
def test_ongoing_requests_is_the_mean_by_the_target(
    target: float, mean: float, replicas: int
) -> None:
    asked = wish(ongoing(target), ongoing=99, mean_load=mean, mean_held_load=mean)
    assert asked.more == replicas
    # With 99 requests ongoing at this instant one replica stays at least.
    assert asked.fewer == max(1, math.ceil(mean * 1.1 / target - 1e-9))


def test_ongoing_requests_goes_by_this_instant_where_there_is_no_replica() -> None:
    assert wish(ongoing(2), at_once=True, queued=7).more == 4


def test_ongoing_requests_has_no_answer_without_a_mean() -> None:
    asked = wish(ongoing(2), queued=7)
    assert asked.filling
    assert "mean over 10 s" in asked.unknown


@pytest.mark.parametrize(("answer", "replicas"), [(0, 0), (2, 2), (2.2, 3), (0.3 / 0.1, 3)])
def test_a_custom_answer_is_rounded_up(answer: float, replicas: int) -> None:
    asked = wish(custom(), custom=answer)
    assert (asked.more, asked.fewer) == (replicas, replicas)


@pytest.mark.parametrize("answer", [math.nan, math.inf, -math.inf, -1.0])
def test_a_custom_answer_that_is_no_count_is_no_answer(answer: float) -> None:
    asked = wish(custom(), custom=answer)
    assert (asked.more, asked.fewer) == (0, 0)
    assert asked.unknown == f"mine:replicas: returned {answer:g}, which is no count"


def test_a_custom_error_is_named_even_beside_an_older_answer() -> None:
    asked = wish(custom(), custom=3.0, custom_error="raised ValueError: no")
    assert asked.unknown == "mine:replicas: raised ValueError: no"


def test_max_of_is_the_largest_and_unknown_if_any_is() -> None:
    both = max_of(depth(30), size(1))
    assert wish(both, queued=10).more == 9
    assert wish(max_of(depth(1), size(50)), queued=10).more == 10
    assert "no answer yet" in wish(max_of(depth(1), custom()), queued=10).unknown


@pytest.mark.parametrize(
    ("policy", "others"),
    [
        (depth(2), {}),
        (latency(30), {"service_time_s": 10.0}),
        (size(1), {}),
        (ongoing(1), {"mean_load": 3.0, "mean_held_load": 9.0}),
    ],
    ids=lambda value: value.WhichOneof("kind") if isinstance(value, Policy) else "",
)
def test_redelivered_requests_keep_replicas_and_ask_for_none(
    policy: Policy, others: dict[str, float]
) -> None:
    with_them = wish(policy, queued=1, ongoing=8, redelivered=6, **others)
    without = wish(policy, queued=1, ongoing=2, **others)
    assert with_them.more == without.more
    assert with_them.fewer > with_them.more


def test_a_capacity_holds_its_largest_load_and_no_more() -> None:
    for capacity in (Capacity(30), Capacity(0.1), Capacity(4, 3), Capacity(1, 1)):
        for replicas in range(1, 40):
            assert capacity.replicas(capacity.load(replicas)) == replicas
            assert capacity.replicas(capacity.load(replicas) + 0.01) == replicas + 1


@pytest.mark.parametrize("slots", [1, 8])
def test_loads_in_sentences_are_those_at_which_the_count_changes(slots: int) -> None:
    for policy in (depth(3), latency(30), size(2)):
        made = policy_of(policy, slots)
        for replicas in (1, 2, 7):
            signals = seen(service_time_s=9.0)
            above = float(made.load_above(signals, replicas, margin=False).split()[-1])
            assert wish(policy, slots, queued=int(above), service_time_s=9.0).more == replicas
            more = wish(policy, slots, queued=int(above) + 1, service_time_s=9.0).more
            assert more == replicas + 1
