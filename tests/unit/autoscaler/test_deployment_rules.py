"""What a deployment may be."""

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask

from forebay.v1.deployment_pb2 import Canary, Deployment
from services.autoscaler import deployment_rules as rules
from services.wire.status import StatusError

DIGEST = "sha256:" + "a" * 64


def deployment(**fields: object) -> Deployment:
    return Deployment(**{"model_digest": DIGEST, **fields})


def mask(*paths: str) -> FieldMask:
    return FieldMask(paths=paths)


def test_fills_in_defaults() -> None:
    made = rules.declared(deployment())
    assert made.max_ongoing_requests == 8
    assert made.max_queued_requests == 1000
    assert made.request_timeout.seconds == 60
    assert made.canary.mode == Canary.MODE_ZEROS
    assert made.HasField("resources")


def test_ignores_what_callers_cannot_declare() -> None:
    made = rules.declared(deployment(name="deployments/x", generation=9, etag="x"))
    assert (made.name, made.generation, made.etag) == ("", 0, "")


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"model_digest": ""}, "model_digest = ''"),
        ({"model_digest": "sha256:" + "A" * 64}, "in lower case"),
        ({"model_digest": "x" * 10_000}, "10000 characters"),
        ({"replicas": -1}, "replicas = -1: it must be 0 to 1000"),
        ({"replicas": 1001}, "replicas = 1001: it must be 0 to 1000"),
        ({"max_ongoing_requests": -1}, "it must be 1 to 1024"),
        ({"max_queued_requests": 1_000_001}, "it must be 1 to 1000000"),
        ({"request_timeout": Duration(nanos=1)}, "it must be 1 ms to 24 h"),
        ({"request_timeout": Duration(seconds=86_401)}, "it must be 1 ms to 24 h"),
        ({"request_timeout": Duration(seconds=1, nanos=2_000_000_000)}, "it must be 1 ms to 24 h"),
        ({"resources": {"gpus": -1}}, "resources.gpus = -1"),
        ({"resources": {"gpus": 1.5}}, "resources.gpus = 1.5"),
        ({"resources": {"gpus": 0.001}}, "resources.gpus = 0.001"),
        ({"resources": {"gpus": float("nan")}}, "resources.gpus = nan"),
        ({"resources": {"gpus": float("inf")}}, "resources.gpus = inf"),
        ({"resources": {"gpu_memory_bytes": -1}}, "gpu_memory_bytes = -1"),
        ({"resources": {"gpu_memory_bytes": 1}}, "has no GPU memory"),
        ({"canary": {"mode": 77}}, "canary.mode = 77"),
    ],
)
def test_refuses_what_is_not_legal(fields: dict[str, object], complaint: str) -> None:
    with pytest.raises(StatusError) as caught:
        rules.declared(deployment(**fields))
    assert complaint in str(caught.value)
    assert len(str(caught.value)) < 300


def test_without_a_mask_the_populated_fields_change() -> None:
    current = rules.declared(deployment(replicas=3, max_ongoing_requests=4))
    made = rules.merged(current, Deployment(max_ongoing_requests=5), None)
    assert (made.replicas, made.max_ongoing_requests) == (3, 5)


def test_a_mask_sets_fields_to_their_defaults_too() -> None:
    current = rules.declared(deployment(replicas=3, max_ongoing_requests=4))
    made = rules.merged(current, Deployment(), mask("replicas", "max_ongoing_requests"))
    assert (made.replicas, made.max_ongoing_requests) == (0, 8)


def test_an_asterisk_replaces_everything_declared_and_nothing_else() -> None:
    current = rules.declared(deployment(replicas=3))
    current.generation = 7
    made = rules.merged(current, deployment(max_queued_requests=5, generation=1), mask("*"))
    assert (made.replicas, made.max_queued_requests, made.generation) == (0, 5, 7)


def test_a_mask_reaches_into_messages() -> None:
    current = rules.declared(deployment(resources={"gpus": 1, "gpu_memory_bytes": 10}))
    made = rules.merged(current, Deployment(resources={"gpus": 2}), mask("resources.gpus"))
    assert (made.resources.gpus, made.resources.gpu_memory_bytes) == (2, 10)


@pytest.mark.parametrize(
    ("path", "complaint"),
    [
        ("name", "name cannot be changed"),
        ("status.message", "status.message is set by the autoscaler"),
        ("generation", "generation is set by the autoscaler"),
        ("nonsense", "has no field 'nonsense'"),
        ("", "has no field ''"),
    ],
)
def test_refuses_paths_that_cannot_be_updated(path: str, complaint: str) -> None:
    with pytest.raises(StatusError, match=complaint):
        rules.merged(rules.declared(deployment()), deployment(), mask(path))


def test_only_what_replicas_run_makes_a_new_generation() -> None:
    current = rules.declared(deployment())
    for fields in (
        {"replicas": 5},
        {"max_queued_requests": 5},
        {"request_timeout": Duration(seconds=1)},
    ):
        assert rules.runs_the_same(current, rules.merged(current, Deployment(**fields), None))
    for fields in (
        {"model_digest": "sha256:" + "b" * 64},
        {"resources": {"gpus": 1}},
        {"max_ongoing_requests": 1},
        {"canary": {"mode": Canary.MODE_OFF}},
    ):
        assert not rules.runs_the_same(current, rules.merged(current, Deployment(**fields), None))


IMAGE = "registry.example.com:5000/team/triton-server:24.10-py3"


@pytest.mark.parametrize(
    "image",
    ["a:1", IMAGE, f"localhost/a/b__c@{DIGEST}", f"a.b-c/d:T_1.x-y@{DIGEST}", "x/" * 126 + "y:1"],
)
def test_an_image_is_a_reference_with_a_tag_or_a_digest(image: str) -> None:
    assert rules.declared(deployment(image=image)).image == image


@pytest.mark.parametrize(
    "image",
    [
        "triton",
        "Triton:1",
        "a b:1",
        "a:",
        "a:1\n",
        ":1",
        "/a:1",
        "a//b:1",
        "a:-1",
        "a@sha256:00",
        f"a@{DIGEST.upper()}",
        f"a@{DIGEST}:1",
        "https://a/b:1",
        "a:1 --privileged",
        "é:1",
        "a:" + "1" * 129,
        "x/" * 127 + "y:1",
    ],
)
def test_what_names_no_image_is_refused(image: str) -> None:
    with pytest.raises(StatusError, match=r"image = .*: it must be name:tag or name@sha256:"):
        rules.declared(deployment(image=image))


def test_a_change_of_the_image_replaces_the_replicas() -> None:
    before = rules.declared(deployment(image="a:1"))
    changed = rules.merged(before, Deployment(image="a:2"), mask("image"))
    assert changed.image == "a:2"
    assert not rules.runs_the_same(before, changed)
    assert rules.merged(before, deployment(), mask("*")).image == ""


def test_a_change_of_volumes_replaces_the_replicas_and_of_their_order_does_not() -> None:
    before = rules.declared(deployment(volumes=[{"name": "a"}, {"name": "b"}]))
    turned = rules.declared(deployment(volumes=[{"name": "b"}, {"name": "a"}]))
    assert rules.runs_the_same(before, turned)
    read = rules.merged(
        before, Deployment(volumes=[{"name": "a", "read_only": True}]), mask("volumes")
    )
    assert [(volume.name, volume.read_only) for volume in read.volumes] == [("a", True)]
    assert not rules.runs_the_same(before, read)
    assert not rules.merged(before, deployment(), mask("*")).volumes


@pytest.mark.parametrize(
    ("names", "complaint"),
    [
        (["A"], "volumes: 'A' cannot name a volume: a name is 1 to 63 of a-z"),
        (["/etc"], "'/etc' cannot name a volume"),
        (["x-read-only"], "cannot name a volume"),
        (["a", "a"], "volumes: a is named twice"),
        ([f"v{i}" for i in range(17)], "volumes: 17 are named: there may be at most 16"),
    ],
)
def test_volumes_that_are_not_legal_are_refused(names: list[str], complaint: str) -> None:
    with pytest.raises(StatusError) as caught:
        rules.declared(deployment(volumes=[{"name": name} for name in names]))
    assert complaint in str(caught.value)
