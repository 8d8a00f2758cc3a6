"""What a scaling policy, a pin, a placement and an environment may be, and what a mask changes."""

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask

from forebay.v1.deployment_pb2 import Deployment
from services.autoscaler import deployment_rules as rules
from services.wire.status import StatusError

DIGEST = "sha256:" + "a" * 64
ONGOING = {"ongoing_requests": {}}
NAN, INF = float("nan"), float("inf")


def deployment(**fields: object) -> Deployment:
    return Deployment(**{"model_digest": DIGEST, **fields})


def scaling(policy: object = None, **fields: object) -> dict[str, object]:
    return {"scaling": {"policy": ONGOING if policy is None else policy, **fields}}


def seconds(value: float) -> Duration:
    duration = Duration()
    duration.FromNanoseconds(round(value * 1e9))
    return duration


def mask(*paths: str) -> FieldMask:
    return FieldMask(paths=paths)


def refusal(**fields: object) -> str:
    with pytest.raises(StatusError) as caught:
        rules.declared(deployment(**fields))
    assert len(str(caught.value)) < 400
    return str(caught.value)


def test_what_is_kept_of_a_policy_is_explicit() -> None:
    made = rules.declared(deployment(max_ongoing_requests=10, **scaling())).scaling
    assert made.policy.ongoing_requests.target_ongoing_requests == 5
    assert made.policy.ongoing_requests.look_back_period.seconds == 10
    assert (made.min_replicas, made.max_replicas) == (0, 1)
    assert (made.upscaling_factor, made.downscaling_factor) == (1, 1)
    delays = made.upscale_delay, made.downscale_delay, made.downscale_to_zero_delay
    assert [delay.seconds for delay in delays] == [3, 120, 300]
    assert not made.HasField("initial_replicas")


def test_policies_inside_a_max_of_get_their_defaults_too() -> None:
    inner = [{"queue_depth": {}}, {"queue_size": {}}, {"ongoing_requests": {}}]
    made = rules.declared(deployment(**scaling({"max_of": {"policies": inner}})))
    depth, size, mean = made.scaling.policy.max_of.policies
    assert depth.queue_depth.max_tasks_per_replica == 30
    assert size.queue_size.queue_size == 1
    assert mean.ongoing_requests.target_ongoing_requests == 4


def test_a_value_of_zero_that_was_set_is_kept() -> None:
    made = rules.declared(
        deployment(
            **scaling(
                {"queue_size": {"queue_size": 0}},
                upscale_delay=Duration(),
                downscale_delay=Duration(),
                downscale_to_zero_delay=Duration(),
                initial_replicas=0,
            ),
            pinned_replicas=0,
        )
    )
    assert made.scaling.policy.queue_size.queue_size == 0
    assert made.scaling.downscale_to_zero_delay == Duration()
    assert made.scaling.HasField("initial_replicas")
    assert made.HasField("pinned_replicas")


@pytest.mark.parametrize(("low", "high"), [(0, 1), (1, 1), (7, 7)])
def test_the_largest_count_follows_the_smallest(low: int, high: int) -> None:
    assert rules.declared(deployment(**scaling(min_replicas=low))).scaling.max_replicas == high


@pytest.mark.parametrize(("slots", "target"), [(1, 1), (2, 1), (3, 1.5), (1024, 512)])
def test_half_of_the_slots_are_the_target_at_least_one(slots: int, target: float) -> None:
    made = rules.declared(deployment(max_ongoing_requests=slots, **scaling()))
    assert made.scaling.policy.ongoing_requests.target_ongoing_requests == target


def test_an_unknown_service_time_stays_unknown() -> None:
    policy = {"request_latency": {"desired_latency": seconds(30)}}
    made = rules.declared(deployment(**scaling(policy)))
    assert not made.scaling.policy.request_latency.HasField("assumed_service_time")


def test_what_is_declared_is_declared_the_same_again() -> None:
    once = rules.declared(
        deployment(
            **scaling({"request_latency": {"desired_latency": seconds(0.5)}}, max_replicas=3),
            resources={"gpus": 0.5, "cpus": 0.29, "custom": {"license_a": 2}},
            environment={"OMP_NUM_THREADS": "4"},
        )
    )
    assert rules.declared(once) == once


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"min_replicas": -1}, "scaling.min_replicas = -1: it must be 0 to 1000"),
        ({"min_replicas": 1001}, "scaling.min_replicas = 1001"),
        ({"max_replicas": -1}, "scaling.max_replicas = -1: it must be 1 to 1000"),
        ({"max_replicas": 1001}, "scaling.max_replicas = 1001"),
        (
            {"min_replicas": 5, "max_replicas": 3},
            "scaling.min_replicas = 5 is above scaling.max_replicas = 3",
        ),
        (
            {"initial_replicas": 4, "max_replicas": 3},
            "scaling.initial_replicas = 4: it must be 0 to 3",
        ),
        (
            {"initial_replicas": 0, "min_replicas": 1},
            "scaling.initial_replicas = 0: it must be 1 to 1",
        ),
        (
            {"windows": [{"begin": "0 8 * * *", "end": "0 9 * * *"}]},
            "scaling.windows[0].min_replicas = 0: it must be 1 to 1000",
        ),
        (
            {"windows": [{"begin": "0 8 30 2 *", "end": "0 9 * * *", "min_replicas": 1}]},
            "scaling.windows[0].begin: '0 8 30 2 *' never comes",
        ),
        (
            {"windows": [{"begin": "0 8 * * *", "end": "9", "min_replicas": 1}]},
            "scaling.windows[0].end: '9' has 1 field",
        ),
        (
            {"windows": [{"begin": "0 8 * * *", "end": "0  8 * * *", "min_replicas": 1}]},
            "scaling.windows[0].end = '0  8 * * *' is the same as begin",
        ),
        (
            {
                "windows": [
                    {
                        "begin": "0 8 * * *",
                        "end": "0 9 * * *",
                        "min_replicas": 1,
                        "timezone": "Berlin",
                    }
                ]
            },
            "scaling.windows[0].timezone: time zone 'Berlin' is not known",
        ),
        (
            {"windows": [{"begin": "0 8 * * *", "end": "0 9 * * *", "min_replicas": 1}] * 17},
            "scaling.windows has 17 windows",
        ),
        ({"upscaling_factor": 0}, "scaling.upscaling_factor = 0: it must be above 0"),
        ({"upscaling_factor": 100.5}, "scaling.upscaling_factor = 100.5"),
        ({"upscaling_factor": NAN}, "scaling.upscaling_factor = nan"),
        ({"upscaling_factor": INF}, "scaling.upscaling_factor = inf"),
        ({"downscaling_factor": -0.5}, "scaling.downscaling_factor = -0.5"),
        (
            {"downscaling_factor": 1.5},
            "scaling.downscaling_factor = 1.5: it must be above 0 and at most 1",
        ),
        ({"downscaling_factor": NAN}, "scaling.downscaling_factor = nan"),
        ({"upscale_delay": seconds(-1)}, "scaling.upscale_delay = -1 s: it must be 0 to 3600"),
        ({"upscale_delay": seconds(3601)}, "scaling.upscale_delay = 3601 s"),
        ({"downscale_delay": seconds(-0.5)}, "scaling.downscale_delay = -0.5 s"),
        ({"downscale_delay": seconds(86_401)}, "scaling.downscale_delay = 86401 s"),
        ({"downscale_to_zero_delay": seconds(-1)}, "scaling.downscale_to_zero_delay = -1 s"),
        ({"downscale_delay": Duration(nanos=2_000_000_000)}, "scaling.downscale_delay = 2 s"),
    ],
)
def test_refuses_bounds_and_steps_that_are_not_legal(
    fields: dict[str, object], complaint: str
) -> None:
    assert complaint in refusal(**scaling(**fields))


def latency(**fields: float) -> dict[str, object]:
    return {"request_latency": {name: seconds(value) for name, value in fields.items()}}


def custom(function: str) -> dict[str, object]:
    return {"custom": {"function": function}}


@pytest.mark.parametrize(
    ("policy", "complaint"),
    [
        ({}, "scaling.policy is empty: set one of ongoing_requests, queue_depth"),
        (
            {"ongoing_requests": {"target_ongoing_requests": -1}},
            "scaling.policy.ongoing_requests.target_ongoing_requests = -1: it must be above 0",
        ),
        ({"ongoing_requests": {"target_ongoing_requests": NAN}}, "target_ongoing_requests = nan"),
        ({"ongoing_requests": {"target_ongoing_requests": INF}}, "target_ongoing_requests = inf"),
        ({"ongoing_requests": {"target_ongoing_requests": 1025}}, "at most 1024"),
        (
            {"ongoing_requests": {"look_back_period": seconds(0.5)}},
            "look_back_period = 0.5 s: it must be 1 to 3600 seconds",
        ),
        ({"ongoing_requests": {"look_back_period": seconds(3601)}}, "look_back_period = 3601 s"),
        ({"queue_depth": {"max_tasks_per_replica": -1}}, "it must be 1 to 1000000"),
        ({"queue_depth": {"max_tasks_per_replica": 1_000_001}}, "it must be 1 to 1000000"),
        (latency(), "request_latency.desired_latency is missing"),
        (latency(desired_latency=0), "desired_latency = 0 s: it must be above 0"),
        (latency(desired_latency=-1), "desired_latency = -1 s"),
        (latency(desired_latency=86_401), "desired_latency = 86401 s"),
        (latency(desired_latency=1, assumed_service_time=0), "assumed_service_time = 0 s"),
        ({"queue_size": {"queue_size": -1}}, "queue_size.queue_size = -1: it must be 0 to 1000000"),
        ({"queue_size": {"queue_size": 1_000_001}}, "queue_size = 1000001"),
        ({"max_of": {}}, "max_of.policies has 0 policies: there must be 1 to 8"),
        ({"max_of": {"policies": [ONGOING] * 9}}, "has 9 policies: there must be 1 to 8"),
        ({"max_of": {"policies": [{}]}}, "scaling.policy.max_of.policies[0] is empty"),
        (
            {"max_of": {"policies": [ONGOING, {"max_of": {"policies": [ONGOING]}}]}},
            "scaling.policy.max_of.policies[1] is a max_of inside a max_of",
        ),
        ({"max_of": {"policies": [custom("a:b"), custom("a:c")]}}, "has 2 custom policies"),
        (
            {"max_of": {"policies": [{"queue_size": {"queue_size": -1}}]}},
            "scaling.policy.max_of.policies[0].queue_size.queue_size = -1",
        ),
        (custom(""), "custom.function = '': it must be package.module:function"),
        (custom("a.b"), "custom.function = 'a.b'"),
        (custom("a:b:c"), "custom.function = 'a:b:c'"),
        (custom("a.:b"), "custom.function = 'a.:b'"),
        (custom("a-b:c"), "custom.function = 'a-b:c'"),
        (custom("a:b()"), "custom.function = 'a:b()'"),
        (custom("a:" + "b" * 300), "at most 255 characters"),
    ],
)
def test_refuses_policies_that_are_not_legal(policy: dict[str, object], complaint: str) -> None:
    assert complaint in refusal(**scaling(policy))


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"accelerator_type": "L4"}, "but resources.gpus is 0"),
        ({"gpus": 1, "accelerator_type": " "}, "it must be part of a GPU's product name"),
        ({"gpus": 1, "accelerator_type": "x" * 64}, "of at most 63 characters"),
        ({"cpus": -1}, "resources.cpus = -1: it must be 0 to 1024, in hundredths"),
        ({"cpus": 1025}, "resources.cpus = 1025"),
        ({"cpus": 0.125}, "resources.cpus = 0.125"),
        ({"cpus": NAN}, "resources.cpus = nan"),
        ({"cpus": INF}, "resources.cpus = inf"),
        ({"memory_bytes": -1}, "resources.memory_bytes = -1: it must be 0 or more"),
        ({"workers": -1}, "resources.workers = -1: it must be 0 to 64"),
        ({"workers": 65}, "resources.workers = 65"),
        ({"custom": {f"r{n}": 1 for n in range(17)}}, "has 17 resources: there may be at most 16"),
        ({"custom": {"": 1}}, "'' cannot name a resource"),
        ({"custom": {"a b": 1}}, "'a b' cannot name a resource"),
        ({"custom": {"tpu": 0}}, "resources.custom.tpu = 0: it must be above 0"),
        ({"custom": {"tpu": -1}}, "resources.custom.tpu = -1"),
        ({"custom": {"tpu": NAN}}, "resources.custom.tpu = nan"),
        ({"custom": {"tpu": INF}}, "resources.custom.tpu = inf"),
    ],
)
def test_refuses_resources_that_are_not_legal(fields: dict[str, object], complaint: str) -> None:
    assert complaint in refusal(resources=fields)


@pytest.mark.parametrize(
    ("environment", "complaint"),
    [
        ({f"V{n}": "" for n in range(65)}, "environment has 65 variables: there may be at most 64"),
        ({"": "x"}, "'' cannot name a variable"),
        ({"1A": "x"}, "'1A' cannot name a variable"),
        ({"A-B": "x"}, "'A-B' cannot name a variable"),
        ({"A=B": "x"}, "'A=B' cannot name a variable"),
        ({"É": "x"}, "cannot name a variable"),
        ({"A" * 129: "x"}, "cannot name a variable"),
        ({"A": "x\0"}, "the value of A has 2 characters"),
        ({"A": "x" * 4097}, "the value of A has 4097 characters"),
        *(
            ({name: "secret"}, f"environment: {name} is set by the node agent")
            for name in (
                *("LD_PRELOAD", "LD_LIBRARY_PATH", "PATH", "CUDA_VISIBLE_DEVICES", "PYTHONHOME"),
                *("NVIDIA_VISIBLE_DEVICES", "NVIDIA_", "FOREBAY_CPUS"),
            )
        ),
    ],
)
def test_refuses_variables_without_showing_their_values(
    environment: dict[str, str], complaint: str
) -> None:
    said = refusal(environment=environment)
    assert complaint in said
    assert "secret" not in said


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"pinned_replicas": -1}, "pinned_replicas = -1: it must be 0 to 1000"),
        ({"pinned_replicas": 1001}, "pinned_replicas = 1001"),
        ({"placement": 77}, "placement = 77: it must be one of PLACEMENT_UNSPECIFIED"),
    ],
)
def test_refuses_pins_and_placements_that_are_not_legal(
    fields: dict[str, object], complaint: str
) -> None:
    assert complaint in refusal(**fields)


def test_a_pin_goes_only_when_a_mask_names_it() -> None:
    current = rules.declared(deployment(pinned_replicas=3, replicas=1))
    for update in (None, mask(), mask("*"), mask("replicas")):
        assert rules.merged(current, deployment(replicas=2), update).pinned_replicas == 3
    assert rules.merged(current, deployment(pinned_replicas=0), None).pinned_replicas == 0
    assert rules.merged(current, deployment(pinned_replicas=5), mask("*")).pinned_replicas == 5
    released = rules.merged(current, Deployment(), mask("pinned_replicas"))
    assert not released.HasField("pinned_replicas")


def test_a_mask_changes_one_number_of_a_policy() -> None:
    current = rules.declared(deployment(**scaling(min_replicas=1, max_replicas=4)))
    changes = Deployment(scaling={"max_replicas": 9, "advisory": True, "min_replicas": 7})
    made = rules.merged(current, changes, mask("scaling.max_replicas", "scaling.advisory"))
    assert (made.scaling.min_replicas, made.scaling.max_replicas) == (1, 9)
    assert made.scaling.advisory
    assert made.scaling.policy == current.scaling.policy
    live = rules.merged(made, Deployment(), mask("scaling.advisory", "scaling.upscale_delay"))
    assert not live.scaling.advisory
    assert live.scaling.upscale_delay.seconds == 3


def test_a_mask_changes_whole_messages_and_maps() -> None:
    current = rules.declared(
        deployment(
            **scaling(), environment={"A": "1"}, placement=Deployment.PLACEMENT_SPREAD, replicas=2
        )
    )
    made = rules.merged(current, Deployment(), mask("scaling", "environment", "placement"))
    assert not made.HasField("scaling")
    assert dict(made.environment) == {}
    assert made.placement == Deployment.PLACEMENT_COMPACT
    again = rules.merged(made, Deployment(environment={"B": "2"}), None)
    assert dict(again.environment) == {"B": "2"}


def test_a_mask_reaches_every_resource() -> None:
    current = rules.declared(
        deployment(resources={"gpus": 1, "cpus": 2, "custom": {"a": 1}, "workers": 3})
    )
    changes = Deployment(resources={"cpus": 4, "custom": {"b": 2}, "workers": 5})
    made = rules.merged(current, changes, mask("resources.cpus", "resources.custom"))
    assert (made.resources.gpus, made.resources.cpus, made.resources.workers) == (1, 4, 3)
    assert dict(made.resources.custom) == {"b": 2}


def test_a_number_of_a_policy_that_is_not_there_cannot_change() -> None:
    current = rules.declared(deployment(replicas=1))
    with pytest.raises(StatusError, match="the deployment has a fixed number of replicas"):
        rules.merged(current, Deployment(), mask("scaling.advisory"))


def test_bounds_are_checked_against_what_is_kept() -> None:
    current = rules.declared(deployment(**scaling(max_replicas=4)))
    with pytest.raises(StatusError, match=r"min_replicas = 5 is above scaling\.max_replicas = 4"):
        rules.merged(current, Deployment(scaling={"min_replicas": 5}), mask("scaling.min_replicas"))


def test_how_many_run_and_where_replaces_no_replica() -> None:
    current = rules.declared(deployment(**scaling()))
    for fields in (
        scaling(min_replicas=1),
        {"pinned_replicas": 2},
        {"placement": Deployment.PLACEMENT_SPREAD},
    ):
        assert rules.runs_the_same(current, rules.merged(current, Deployment(**fields), None))
    for fields in (
        {"resources": {"workers": 2}},
        {"resources": {"cpus": 2}},
        {"resources": {"memory_bytes": 2}},
        {"resources": {"custom": {"a": 1}}},
        {"environment": {"A": "1"}},
    ):
        assert not rules.runs_the_same(current, rules.merged(current, Deployment(**fields), None))


def test_custom_functions_are_found_wherever_they_are() -> None:
    def functions(policy: object) -> list[str]:
        return rules.custom_functions(rules.declared(deployment(**scaling(policy))).scaling)

    assert functions(ONGOING) == []
    assert functions(custom("pack.age:count")) == ["pack.age:count"]
    assert functions({"max_of": {"policies": [ONGOING, custom("a:b")]}}) == ["a:b"]
