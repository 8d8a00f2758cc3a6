"""How many replicas `forebay deploy` waits for, and what counts as changed."""

import pytest

from forebay.becoming_ready import wanted_replicas
from forebay.deploying import changed_fields
from forebay.deployment_file import parse
from forebay.v1.deployment_pb2 import Deployment
from services.autoscaler import deployment_rules

DIGEST = "sha256:" + "a" * 64


def scaled(low: int, target: int, unplaced: int = 0, **fields: int) -> Deployment:
    return Deployment(
        scaling={"min_replicas": low, "max_replicas": 9, **fields},
        status={"target_replica_count": target, "unplaced_replica_count": unplaced},
    )


@pytest.mark.parametrize(
    ("deployment", "wanted"),
    [
        (Deployment(replicas=3), 3),
        (Deployment(replicas=3, pinned_replicas=1), 1),
        (Deployment(replicas=3, pinned_replicas=0), 0),
        (scaled(0, 0), 0),
        (scaled(2, 0), 2),
        (scaled(2, 5), 5),
        # What has no place is not waited for, unless nothing would serve.
        (scaled(2, 5, unplaced=2), 3),
        (scaled(2, 5, unplaced=4), 2),
        (scaled(0, 5, unplaced=5), 1),
        # A target of zero is believed of what is not new.
        (scaled(0, 0, initial_replicas=2), 0),
    ],
)
def test_waits_for_what_should_answer(deployment: Deployment, wanted: int) -> None:
    assert wanted_replicas(deployment) == wanted


def test_waits_for_the_first_replicas_of_what_is_new() -> None:
    assert wanted_replicas(scaled(0, 0, initial_replicas=2), is_new=True) == 2
    assert wanted_replicas(scaled(0, 0), is_new=True) == 0


@pytest.mark.parametrize(
    ("text", "changed"),
    [
        ("", []),
        ("scaling: {max_replicas: 4}", []),
        ("scaling: {max_replicas: 5}", ["scaling"]),
        ("scaling: {max_replicas: 4, upscale_delay_s: 3}", []),
        ("replicas: 2", ["replicas", "scaling"]),
        ("resources: {custom: {b: 1, a: 2}, cpus: 0.1}", ["resources"]),
        ("environment: {A: '1'}", ["environment"]),
        ("placement: spread", ["placement"]),
        ("image: triton:24.10", ["image"]),
        ("placement: compact", []),
        ("max_ongoing_requests: 9", ["scaling", "max_ongoing_requests"]),
    ],
)
def test_only_what_differs_from_what_is_kept_is_changed(text: str, changed: list[str]) -> None:
    """The target of a policy follows the slots, so that a change of those changes both."""

    def proto(text: str) -> Deployment:
        if "replicas" not in text:
            text += "\nscaling: {max_replicas: 4}"
        return parse(f"name: a\nmodel: m\n{text}\n", "d.yaml").spec.to_proto(DIGEST)

    assert changed_fields(deployment_rules.declared(proto("")), proto(text)) == changed


def test_a_pin_is_no_difference() -> None:
    kept = deployment_rules.declared(Deployment(model_digest=DIGEST, replicas=1, pinned_replicas=3))
    wanted = parse("name: a\nmodel: m\n", "d.yaml").spec.to_proto(DIGEST)
    assert changed_fields(kept, wanted) == []
