"""Spans of a node have few names, whatever models, replicas and messages there are."""

import pytest

from services.node_agent.traces import trace_names as names


@pytest.mark.parametrize(
    ("message", "step"),
    [
        ("fetching the model", "model fetch"),
        ("building the model's Python environment from its requirements.txt", "environment build"),
        ("making sure of the image", "image pull"),
        ("Collecting imageio: canary inference", None),
        ("Triton is loading the model", "triton load"),
        ("canary inference", "canary"),
        ("waiting for NATS: timeout", None),
    ],
)
def test_what_a_replica_says_begins_a_step(message: str, step: str | None) -> None:
    assert names.start_step(message) == step
    assert step is None or step in names.START_STEPS


def test_a_model_of_any_name_is_one_name() -> None:
    of_models = {
        names.triton_span(model, {"triton.model_name": model})
        for model in ("echo", "compute", "resnet-50")
    }
    assert of_models == {"triton model"}


@pytest.mark.parametrize(
    ("said", "called"),
    [
        ("InferRequest", "triton InferRequest"),
        ("compute", "triton compute"),
        ("whatever a model thinks of", "triton other"),
    ],
)
def test_what_else_triton_says_is_one_of_three(said: str, called: str) -> None:
    assert names.triton_span(said, {}) == called


def test_the_id_that_a_caller_gave_its_request_does_not_go_on() -> None:
    assert not names.kept_attribute("triton.request_id")
    assert names.kept_attribute("triton.model_name")


def test_triton_traces_calls_with_a_context_only() -> None:
    flags = names.triton_flags("http://127.0.0.1:4318/v1/traces", "echo-1")
    assert "--trace-config=rate=0" in flags
    assert "--trace-config=opentelemetry,resource=forebay.replica=echo-1" in flags
