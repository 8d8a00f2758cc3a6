"""Time windows in deployment files: what they mean, and what is said of wrong ones."""

import json
from typing import Any

import pytest

from forebay.deployment_file import DeploymentFileError, Parsed, parse
from forebay.v1.scaling_pb2 import ScalingPolicy
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


OFFICE = {"begin": "0 8 * * MON-FRI", "end": "0 18 * * MON-FRI", "min_replicas": 2}


def test_windows_are_taken_as_they_are_written() -> None:
    text = flow(max_replicas=3, windows=[{**OFFICE, "timezone": "Europe/Berlin"}])
    (window,) = scaling_of(text).windows
    assert (window.begin, window.end) == (OFFICE["begin"], OFFICE["end"])
    assert (window.timezone, window.min_replicas) == ("Europe/Berlin", 2)
    declared = parsed(text).spec.to_proto(DIGEST)
    assert deployment_rules.declared(declared).scaling == declared.scaling


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"begin": "0 25 * * *"}, "scaling.windows.0.begin is wrong: '0 25 * * *': its hour"),
        ({"end": "0 0 31 2 *"}, "scaling.windows.0.end is wrong: '0 0 31 2 *' never comes"),
        ({"end": OFFICE["begin"]}, "the same as begin"),
        ({"timezone": "Mars"}, "scaling.windows.0.timezone is wrong: time zone 'Mars'"),
        ({"min_replicas": 0}, "legal is a whole number from 1 to 1000"),
        ({"max_replicas": 2}, "legal keys are begin, end, timezone, min_replicas"),
        ({"begin": 8}, "legal is a cron expression of five fields"),
    ],
)
def test_what_is_wrong_with_a_window_is_said(change: dict[str, Any], complaint: str) -> None:
    assert complaint in error_of(flow(windows=[{**OFFICE, **change}]))


def test_a_window_without_an_end_is_told_what_is_missing() -> None:
    window = {"begin": "0 8 * * *", "min_replicas": 1}
    assert "scaling.windows.0.end is missing; legal is a cron" in error_of(flow(windows=[window]))
