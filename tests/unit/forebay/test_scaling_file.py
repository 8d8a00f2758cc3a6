"""Scaling, resources and environment in deployment files: what they mean, what is said of wrong ones."""  # noqa: E501

import json
from typing import Any

import pytest

from forebay.deployment_file import DeploymentFileError, Parsed, parse
from forebay.deployment_schema import schema
from forebay.v1.deployment_pb2 import Deployment
from forebay.v1.scaling_pb2 import Policy, ScalingPolicy
from services.autoscaler import deployment_rules

DIGEST = "sha256:" + "a" * 64
HEAD = "name: a\nmodel: m\n"


def parsed(text: str) -> Parsed:
    return parse(HEAD + text, "d.yaml")


def scaling_of(text: str) -> ScalingPolicy:
    return parsed(text).spec.to_proto(DIGEST).scaling


def flow(**values: Any) -> str:
    """`scaling` on line 3, its keys from line 4 on, one a line."""
    return "scaling:\n" + "".join(f"  {key}: {json.dumps(v)}\n" for key, v in values.items())


def error_of(text: str) -> str:
    with pytest.raises(DeploymentFileError) as caught:
        parsed(text)
    return str(caught.value)


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ({"min_replicas": 0}, "ongoing_requests"),
        ({"target_ongoing_requests": 2}, "ongoing_requests"),
        ({"look_back_period_s": 2}, "ongoing_requests"),
        ({"max_tasks_per_replica": 30}, "queue_depth"),
        ({"desired_latency_s": 30}, "request_latency"),
        ({"desired_latency_s": 30, "assumed_service_time_s": 60}, "request_latency"),
        ({"queue_size": 1}, "queue_size"),
        ({"policies": [{"queue_size": 1}]}, "max_of"),
        ({"function": "a.b:c"}, "custom"),
        ({"policy": "queue_depth"}, "queue_depth"),
        ({"policy": "queue_size"}, "queue_size"),
    ],
)
def test_a_policy_is_known_by_its_name_or_by_its_own_key(values: dict[str, Any], kind: str) -> None:
    assert scaling_of(flow(**values)).policy.WhichOneof("kind") == kind


@pytest.mark.parametrize(
    "text",
    [
        "replicas: 3\n",
        flow(min_replicas=2),
        flow(target_ongoing_requests=2.5, look_back_period_s=30, initial_replicas=1),
        flow(policy="queue_depth", max_replicas=5),
        flow(desired_latency_s=0.25),
        flow(desired_latency_s=30, assumed_service_time_s=60),
        flow(queue_size=0, downscale_delay_s=30, downscale_to_zero_delay_s=30),
        flow(policies=[{"queue_depth": 1, "policy": "queue_depth"}, {}])
        .replace('"queue_depth": 1, ', "")
        .replace(", {}", ', {"queue_size": 4}'),
        flow(function="mine:count", advisory=True, upscaling_factor=2, downscaling_factor=0.5),
        flow(max_replicas=3) + "max_ongoing_requests: 3\n",
        "resources: {gpus: 0.5, accelerator_type: L4, cpus: 0.29, memory_bytes: 5, workers: 2}\n",
        "resources: {custom: {license_a: 0.5}}\nenvironment: {A: '1'}\nplacement: spread\n",
    ],
)
def test_what_a_file_declares_is_kept_as_it_is(text: str) -> None:
    """The defaults here and those of the autoscaler are the same."""
    sent = parsed(text).spec.to_proto(DIGEST)
    kept = deployment_rules.declared(sent)
    kept.name = sent.name
    assert kept == sent


def test_every_key_reaches_the_autoscaler() -> None:
    scaling = scaling_of(
        flow(
            policy="ongoing_requests",
            target_ongoing_requests=2,
            look_back_period_s=20,
            min_replicas=1,
            max_replicas=8,
            initial_replicas=2,
            upscaling_factor=1.5,
            downscaling_factor=0.5,
            upscale_delay_s=0.5,
            downscale_delay_s=60,
            downscale_to_zero_delay_s=90,
            advisory=True,
        )
    )
    mean = scaling.policy.ongoing_requests
    assert (mean.target_ongoing_requests, mean.look_back_period.seconds) == (2, 20)
    counts = scaling.min_replicas, scaling.max_replicas, scaling.initial_replicas
    assert counts == (1, 8, 2)
    assert (scaling.upscaling_factor, scaling.downscaling_factor) == (1.5, 0.5)
    assert scaling.upscale_delay.ToMilliseconds() == 500
    assert scaling.downscale_delay.seconds == 60
    assert scaling.downscale_to_zero_delay.seconds == 90
    assert scaling.advisory


def test_resources_placement_and_environment_reach_the_autoscaler() -> None:
    text = (
        "resources: {gpus: 1, gpu_memory_bytes: 7, accelerator_type: L4, cpus: 2.5,"
        " memory_bytes: 9, custom: {tpu: 2}, workers: 4}\n"
        "placement: spread\nenvironment: {OMP_NUM_THREADS: '4', EMPTY: ''}\n"
    )
    made = parsed(text).spec.to_proto(DIGEST)
    assert (made.resources.gpus, made.resources.gpu_memory_bytes) == (1, 7)
    assert (made.resources.accelerator_type, made.resources.cpus) == ("L4", 2.5)
    assert (made.resources.memory_bytes, made.resources.workers) == (9, 4)
    assert dict(made.resources.custom) == {"tpu": 2}
    assert made.placement == Deployment.PLACEMENT_SPREAD
    assert dict(made.environment) == {"OMP_NUM_THREADS": "4", "EMPTY": ""}


def test_without_scaling_there_is_one_replica() -> None:
    made = parsed("").spec.to_proto(DIGEST)
    assert (made.replicas, made.HasField("scaling")) == (1, False)


def test_rays_name_for_scaling_is_taken_without_a_note() -> None:
    found = parsed("autoscaling_config: {min_replicas: 1, target_ongoing_requests: 3}\n")
    assert found.notes == ()
    assert found.spec == parsed("scaling: {min_replicas: 1, target_ongoing_requests: 3}\n").spec


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("max_concurrent_queries: 5", "max_ongoing_requests: 5"),
        ("num_replicas: 5", "replicas: 5"),
        (
            "scaling: {target_num_ongoing_requests_per_replica: 5}",
            "scaling: {target_ongoing_requests: 5}",
        ),
        (
            "scaling: {smoothing_factor: 0.5}",
            "scaling: {upscaling_factor: 0.5, downscaling_factor: 0.5}",
        ),
        ("scaling: {upscale_smoothing_factor: 0.5}", "scaling: {upscaling_factor: 0.5}"),
        ("scaling: {downscale_smoothing_factor: 0.5}", "scaling: {downscaling_factor: 0.5}"),
        ("scaling: {desired_latency: 30}", "scaling: {desired_latency_s: 30}"),
        ("scaling: {tasks_per_container: 3}", "scaling: {max_tasks_per_replica: 3}"),
        ("scaling: {min_containers: 2}", "scaling: {min_replicas: 2}"),
        ("scaling: {max_containers: 2}", "scaling: {max_replicas: 2}"),
        (
            "scaling: {idle_time_s: 30}",
            "scaling: {downscale_delay_s: 30, downscale_to_zero_delay_s: 30}",
        ),
        (
            "scaling: {keep_warm_seconds: 30}",
            "scaling: {downscale_delay_s: 30, downscale_to_zero_delay_s: 30}",
        ),
        (
            "scaling: {policies: [{desired_latency: 3}]}",
            "scaling: {policies: [{desired_latency_s: 3}]}",
        ),
    ],
)
def test_an_old_name_means_the_new_one_and_says_so(old: str, new: str) -> None:
    found, same = parsed(f"{old}\n"), parsed(f"{new}\n")
    assert (found.spec, same.notes) == (same.spec, ())
    (note,) = found.notes
    assert note.startswith("d.yaml:3: ")
    names = new.replace("{", " ").replace("[", " ").split()
    for name in (n.rstrip(":") for n in names if n.endswith(":") and n != "scaling:"):
        assert name == "policies" or name in note


def test_rays_examples_mean_what_they_meant() -> None:
    text = """\
max_concurrent_queries: 14
autoscaling_config:
  target_num_ongoing_requests_per_replica: 10
  min_replicas: 0
  max_replicas: 20
"""
    found = parsed(text)
    made = found.spec.to_proto(DIGEST)
    assert made.max_ongoing_requests == 14
    assert made.scaling.policy.ongoing_requests.target_ongoing_requests == 10
    assert found.notes == (
        "d.yaml:3: max_concurrent_queries is called max_ongoing_requests here",
        "d.yaml:5: autoscaling_config.target_num_ongoing_requests_per_replica is called "
        "target_ongoing_requests here",
    )


WRONG = [
    # Values.
    ("scaling: 3", "d.yaml:3: scaling = 3; legal is a mapping such as"),
    ("scaling:", "d.yaml:3: scaling is empty; legal is a mapping"),
    ("scaling: [1]", "d.yaml:3: scaling = [1]; legal is a mapping"),
    (flow(min_replicas=-1), "d.yaml:4: scaling.min_replicas = -1; legal is a whole number from 0"),
    (flow(min_replicas=1001), "scaling.min_replicas = 1001; legal is"),
    (flow(min_replicas=1.5), "scaling.min_replicas = 1.5; legal is a whole number"),
    (flow(min_replicas="1"), "scaling.min_replicas = '1'; legal is a whole number"),
    (flow(max_replicas=0), "scaling.max_replicas = 0; legal is a whole number from 1 to 1000"),
    (flow(max_replicas=None), "d.yaml:4: scaling.max_replicas is empty; legal is a whole number"),
    (flow(initial_replicas=-1), "scaling.initial_replicas = -1; legal is"),
    (flow(target_ongoing_requests=0), "legal is a number above 0 up to 1024"),
    ("scaling: {target_ongoing_requests: .nan}", "target_ongoing_requests = nan; legal is"),
    ("scaling: {target_ongoing_requests: .inf}", "target_ongoing_requests = inf; legal is"),
    (flow(look_back_period_s=0.5), "legal is seconds from 1 to 3600"),
    (flow(max_tasks_per_replica=0), "legal is a whole number from 1 to 1000000"),
    (flow(desired_latency_s=0), "legal is seconds above 0 up to 86400"),
    (flow(desired_latency_s="30s"), "scaling.desired_latency_s = '30s'; legal is seconds"),
    (flow(desired_latency_s=1, assumed_service_time_s=-1), "d.yaml:5: scaling.assumed_service"),
    (flow(queue_size=-1), "legal is a whole number from 0 to 1000000"),
    (flow(upscaling_factor=0), "legal is a number above 0 up to 100"),
    ("scaling: {upscaling_factor: .inf}", "scaling.upscaling_factor = inf; legal is"),
    (flow(downscaling_factor=1.5), "legal is a number above 0 up to 1"),
    ("scaling: {downscaling_factor: .nan}", "scaling.downscaling_factor = nan; legal is"),
    (flow(upscale_delay_s=-1), "scaling.upscale_delay_s = -1; legal is seconds from 0 to 3600"),
    (flow(downscale_delay_s=-1), "legal is seconds from 0 to 86400"),
    (flow(downscale_to_zero_delay_s=86401), "legal is seconds from 0 to 86400"),
    (flow(advisory="yes"), "scaling.advisory = 'yes'; legal is true or false"),
    # Names.
    (flow(min_replica=1), "d.yaml:4: unknown key scaling.min_replica = 1; did you mean min_repl"),
    (flow(policy="queue_dept"), "scaling.policy = 'queue_dept'; did you mean queue_depth? legal"),
    (flow(policy="random"), "scaling.policy = 'random'; legal is ongoing_requests, queue_depth"),
    (flow(policy={"name": "x"}), "scaling.policy = {'name': 'x'}; legal is ongoing_requests"),
    ("min_replicas: 1", "unknown key min_replicas = 1; did you mean scaling.min_replicas?"),
    ("workers: 1", "unknown key workers = 1; did you mean resources.workers?"),
    (flow(replicas=1), "unknown key scaling.replicas = 1; did you mean"),
    (flow(canary="off"), "did you mean canary, not under scaling?"),
    (flow(policies=[{"queue_siz": 1}]), "unknown key scaling.policies.0.queue_siz = 1; did you"),
    # What does not go together.
    (
        flow(min_replicas=5, max_replicas=3),
        "d.yaml:4: scaling.min_replicas = 5 is above max_replicas = 3",
    ),
    (flow(initial_replicas=2), "scaling.initial_replicas = 2; legal is a whole number from 0 to 1"),
    (flow(initial_replicas=0, min_replicas=1), "legal is a whole number from 1 to 1"),
    ("replicas: 2\n" + flow(min_replicas=1), "d.yaml:3: replicas = 2 and scaling cannot both"),
    ("num_replicas: 2\n" + flow(min_replicas=1), "num_replicas (here replicas) = 2 and scaling"),
    (
        flow(policy="queue_depth", queue_size=1),
        "d.yaml:5: scaling.queue_size belongs to the policy queue_size, but the policy is queue_de",
    ),
    (
        flow(max_tasks_per_replica=3, queue_size=1),
        "scaling has max_tasks_per_replica and queue_size, of different policies; say which with "
        "policy: queue_depth or queue_size",
    ),
    (flow(assumed_service_time_s=1), "scaling.desired_latency_s is missing; the policy request_la"),
    (flow(policy="request_latency"), "scaling.desired_latency_s is missing"),
    (flow(policy="max_of"), "scaling.policies is missing; the policy max_of needs it"),
    (flow(policy="custom"), "scaling.function is missing; the policy custom needs it"),
    (flow(function="a.b"), "scaling.function = 'a.b'; legal is package.module:function"),
    # Several policies.
    (flow(policies=[]), "scaling.policies = []; legal is a list of 1 to 8 mappings"),
    (flow(policies=[{"queue_size": 1}] * 9), "legal is a list of 1 to 8 mappings"),
    (flow(policies=[3]), "scaling.policies.0 = 3; legal is"),
    (
        flow(policies=[{"policy": "max_of"}]),
        "scaling.policies.0.policy = 'max_of'; legal is ongoing_requests, queue_depth, request_l",
    ),
    (flow(policies=[{"policies": []}]), "unknown key scaling.policies.0.policies"),
    (flow(policies=[{"function": "a:b"}, {"function": "a:c"}]), "has 2 custom policies; there may"),
    (flow(policies=[{"function": "a"}]), "scaling.policies.0.function = 'a'; legal is"),
    (flow(policies=[{"policy": "custom"}]), "scaling.policies.0.function is missing"),
    (flow(policies=[{"policy": "queue_size", "max_tasks_per_replica": 1}]), "belongs to the pol"),
    # Old names.
    (
        flow(smoothing_factor=2),
        "scaling.smoothing_factor (here downscaling_factor) = 2; legal is a number above 0 up to 1",
    ),
    (flow(idle_time_s=-1), "scaling.idle_time_s (here downscale_to_zero_delay_s) = -1; legal is"),
    (
        "autoscaling_config: {target_num_ongoing_requests_per_replica: -1}",
        "autoscaling_config.target_num_ongoing_requests_per_replica (here target_ongoing_requests)",
    ),
    ("max_concurrent_queries: 0", "max_concurrent_queries (here max_ongoing_requests) = 0; legal"),
    (
        flow(min_replicas=5, max_containers=3),
        "scaling.min_replicas = 5 is above max_replicas = 3",
    ),
    (
        flow(policies=[{"desired_latency": 0}]),
        "scaling.policies.0.desired_latency (here desired_latency_s) = 0; legal is seconds",
    ),
    (
        flow(target_ongoing_requests=1, target_num_ongoing_requests_per_replica=1),
        "d.yaml:5: scaling.target_num_ongoing_requests_per_replica and "
        "scaling.target_ongoing_requests say the same thing",
    ),
    (
        flow(smoothing_factor=1, upscale_smoothing_factor=1),
        "scaling.upscale_smoothing_factor and scaling.smoothing_factor say the same thing, here "
        "called upscaling_factor; drop upscale_smoothing_factor",
    ),
    (
        flow(idle_time_s=1, downscale_delay_s=1),
        "scaling.idle_time_s and scaling.downscale_delay_s say the same thing",
    ),
    ("max_concurrent_queries: 1\nmax_ongoing_requests: 1", "say the same thing, here called max_o"),
    ("scaling: {}\nautoscaling_config: {}", "d.yaml:4: autoscaling_config and scaling say the sa"),
    (flow(metrics_interval_s=10), "scaling.metrics_interval_s has no counterpart here: signals"),
    (flow(target_groups=[]), "scaling.target_groups has no counterpart here: all replicas"),
    (flow(aggregation_function="max"), "scaling.aggregation_function has no counterpart here"),
    ("ray_actor_options: {num_gpus: 1}", "ray_actor_options has no counterpart here: what a repl"),
    # Resources.
    ("resources:\n  accelerator_type: L4", "d.yaml:4: resources.accelerator_type = 'L4', but gpus"),
    ("resources:\n  gpu_memory_bytes: 1", "resources.gpu_memory_bytes = 1, but gpus is 0"),
    ("resources: {gpus: 1, accelerator_type: ' '}", "legal is part of a GPU's product name"),
    ("resources: {gpus: 0.001}", "resources.gpus = 0.001; legal is 0, a fraction"),
    ("resources: {cpus: 0.125}", "resources.cpus = 0.125; legal is a number from 0 to 1024, in hu"),
    ("resources: {cpus: .nan}", "resources.cpus = nan; legal is a number"),
    ("resources: {cpus: -1}", "resources.cpus = -1; legal is a number"),
    ("resources: {memory_bytes: 1G}", "resources.memory_bytes = '1G'; legal is a whole number of"),
    ("resources: {workers: 65}", "resources.workers = 65; legal is a whole number from 0 to 64"),
    ("resources: {worker: 2}", "unknown key resources.worker = 2; did you mean workers?"),
    ("resources: {custom: 3}", "resources.custom = 3; legal is a mapping of at most 16"),
    ("resources: {custom: {tpu: many}}", "resources.custom.tpu = 'many'; legal is an amount"),
    ("resources:\n  custom:\n    tpu: 0", "d.yaml:5: resources.custom.tpu = 0.0; legal is an amo"),
    ("resources: {custom: {a b: 1}}", "resources.custom.a b cannot name a resource; legal is 1"),
    ("placement: compat", "placement = 'compat'; did you mean compact? legal is compact or spread"),
    # Environment.
    ("environment: {PATH: secret}", "d.yaml:3: environment.PATH is set by the node agent"),
    ("environment: {NVIDIA_X: secret}", "environment.NVIDIA_X is set by the node agent"),
    ("environment: {1A: secret}", "environment.1A cannot name a variable; legal is letters"),
    ("environment:\n  A: 1", "d.yaml:4: environment.A is int, not text; legal is text of at most"),
    ("environment: {A: [secret]}", "environment.A is a list of 1; legal is text"),
    ("environment: {1: secret}", "environment.1 is int, not text"),
    ("environment: [A=secret]", "environment is a list of 1; legal is a mapping of at most 64"),
    (
        f"environment: {json.dumps({f'V{n}': 'secret' for n in range(65)})}",
        "environment is a dict of 65; legal is a mapping of at most 64",
    ),
    (f"environment: {{A: {'secret' * 1000}}}", "environment.A has 6000 characters; legal is text"),
]


@pytest.mark.parametrize(("text", "said"), WRONG, ids=[said[:60] for _, said in WRONG])
def test_what_is_wrong_is_said_with_its_line_and_what_is_legal(text: str, said: str) -> None:
    message = error_of(f"{text}\n")
    assert said in message
    assert message.startswith("d.yaml:")
    assert "secret" not in message


def test_all_that_is_wrong_is_said_at_once() -> None:
    lines = error_of(flow(min_replica=1, max_replicas=0, metrics_interval_s=1)).splitlines()
    assert [line.partition(": ")[0] for line in lines] == ["d.yaml:6", "d.yaml:5", "d.yaml:4"]


def _described(part: dict[str, Any]) -> list[str]:
    return [name for name, value in part["properties"].items() if not value.get("description")]


def test_the_schema_describes_every_key_for_editors() -> None:
    found = schema()
    parts = found["$defs"]
    assert _described(found) == []
    for name in ("ScalingSpec", "InnerPolicy", "Resources"):
        assert _described(parts[name]) == []
        assert parts[name]["additionalProperties"] is False
    scaling = parts["ScalingSpec"]["properties"]
    assert scaling["policy"]["enum"] == [field.name for field in Policy.DESCRIPTOR.fields]
    assert scaling["policies"]["items"] == {"$ref": "#/$defs/InnerPolicy"}
    assert (scaling["downscale_delay_s"]["default"], scaling["queue_size"]["minimum"]) == (120, 0)
    assert found["properties"]["scaling"]["$ref"] == "#/$defs/ScalingSpec"
    assert "null" not in json.dumps(found)


def test_the_schema_marks_old_names_as_such() -> None:
    found = schema()
    scaling = found["$defs"]["ScalingSpec"]["properties"]
    old = {name for name, value in scaling.items() if value.get("deprecated")}
    assert {"smoothing_factor", "idle_time_s", "desired_latency"} <= old
    assert "here" in scaling["smoothing_factor"]["description"]
    assert found["properties"]["autoscaling_config"]["$ref"] == "#/$defs/ScalingSpec"
    assert {"not": {"required": ["replicas", "scaling"]}} in found["allOf"]
