"""One request is one trace, from the caller through the queue to Triton and back."""

from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

import forebay
from forebay.v1.inference_pb2 import InferRequest
from services.runtime import model_messages
from tests.support.chaos_model import write_chaos
from tests.support.eventually import eventually
from tests.support.forebay_up import ForebayUp
from tests.support.otlp_receiver import OtlpReceiver, attributes, failed

INFER = "/forebay.v1.RouterService/Infer"
SERVER = "forebay.v1.RouterService/Infer"
AT_ZERO = {"scaling": {"min_replicas": 0, "initial_replicas": 0}}


@pytest.fixture(scope="module")
def receiver() -> Iterator[OtlpReceiver]:
    with OtlpReceiver() as receiver:
        yield receiver


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory, receiver: OtlpReceiver) -> Iterator[ForebayUp]:
    directory = tmp_path_factory.mktemp("traces")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{receiver.port}")
        patch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
        with ForebayUp(directory / "state") as up:
            up.forebay("deploy", write_chaos(directory / "said", name="said")).ok()
            up.forebay(
                "deploy", "--no-wait", write_chaos(directory / "cold", name="cold", **AT_ZERO)
            ).ok()
            receiver.until_triton_tells(lambda: call(up, b"x")["forebay-trace-id"])
            yield up


@pytest.fixture
def client(mesh: ForebayUp, receiver: OtlpReceiver) -> Iterator[forebay.Client]:
    """A client whose process exports spans."""
    with receiver.told_by("client"), forebay.Client(mesh.mesh["router"]) as client:
        yield client


def word(text: str) -> dict[str, np.ndarray]:
    return {"DO": np.array([text], dtype=object)}


def call(
    mesh: ForebayUp, word: bytes, traceparent: str | None = None, name: str = "said"
) -> dict[str, str]:
    """Infers; returns the trailing metadata, also of a call that failed."""
    request = InferRequest(model_name=name)
    request.inputs.add(name="DO", datatype="BYTES", shape=[1])
    request.raw_input_contents.append(len(word).to_bytes(4, "little") + word)
    metadata = [("traceparent", traceparent)] if traceparent else []
    with grpc.insecure_channel(mesh.mesh["router"]) as channel:
        ended = channel.unary_unary(INFER).future(
            request.SerializeToString(), timeout=120, metadata=metadata
        )
        return {key: str(value) for key, value in ended.trailing_metadata()}


SERVICES = {
    SERVER: "forebay-router",
    "publish request": "forebay-router",
    "queue wait": "forebay-node-agent",
    "attempt": "forebay-node-agent",
    "triton ModelInfer": "forebay-node-agent",
    "reply": "forebay-node-agent",
    "triton InferRequest": "triton",
    "triton model": "triton",
    "triton compute": "triton",
}
PARENTS = {
    "publish request": SERVER,
    "queue wait": "publish request",
    "attempt": "publish request",
    "triton ModelInfer": "attempt",
    "reply": "attempt",
    "triton InferRequest": "triton ModelInfer",
    "triton model": "triton InferRequest",
    "triton compute": "triton model",
}
WITHIN = ("triton ModelInfer", "reply", "triton InferRequest", "triton model", "triton compute")
"""Spans that end before their parents do; the clock is that of one machine."""

SLACK_NS = 2_000_000

TRITON_SLACK_NS = 1_000_000_000
"""Triton's own spans end once it has let go of the request, which is after it has answered: a few
microseconds, unless another process has the core just then."""


async def whole(receiver: OtlpReceiver, trace_id: str, but: str = "") -> dict[str, Span]:
    """The spans of a request's trace, by name, once all `but` one service's have come."""
    wanted = {name for name, service in SERVICES.items() if service != but}
    await eventually(lambda: set(receiver.trace(trace_id)) >= wanted, timeout_s=60)
    return {name: span for name, (_, span) in receiver.trace(trace_id).items()}


async def test_the_spans_of_a_request_form_one_tree(
    mesh: ForebayUp, receiver: OtlpReceiver
) -> None:
    trace_id = call(mesh, b"wait:0.05")["forebay-trace-id"]
    spans = await whole(receiver, trace_id)
    assert {name: service for name, (service, _) in receiver.trace(trace_id).items()} == SERVICES
    for child, parent in PARENTS.items():
        assert spans[child].parent_span_id == spans[parent].span_id, child
        began, other = spans[child].start_time_unix_nano, spans[parent].start_time_unix_nano
        assert child == "queue wait" or began >= other - SLACK_NS, child
    for child in WITHIN:
        ended, other = spans[child].end_time_unix_nano, spans[PARENTS[child]].end_time_unix_nano
        slack_ns = TRITON_SLACK_NS if SERVICES[child] == "triton" else SLACK_NS
        assert ended <= other + slack_ns, child
    assert not spans[SERVER].parent_span_id
    for name in ("triton ModelInfer", "triton compute"):
        took = spans[name].end_time_unix_nano - spans[name].start_time_unix_nano
        assert took >= 50_000_000, name
    waited_until = spans["queue wait"].end_time_unix_nano
    assert waited_until <= spans["triton ModelInfer"].start_time_unix_nano
    assert spans["triton ModelInfer"].end_time_unix_nano <= spans[SERVER].end_time_unix_nano


async def test_spans_say_what_an_operator_looks_for(
    mesh: ForebayUp, receiver: OtlpReceiver
) -> None:
    trailers = call(mesh, b"x")
    spans = await whole(receiver, trailers["forebay-trace-id"])
    request_id = trailers["forebay-request-id"]
    server, publish = attributes(spans[SERVER]), attributes(spans["publish request"])
    assert server == {
        "rpc.system.name": "grpc",
        "rpc.method": SERVER,
        "rpc.response.status_code": "OK",
        "forebay.request.id": request_id,
        "forebay.deployment": "said",
        "forebay.outcome": "ok",
    }
    assert publish["messaging.system"] == "nats"
    assert publish["messaging.operation.type"] == "send"
    assert publish["messaging.destination.name"] == "forebay.request.said"
    assert publish["messaging.message.id"] == request_id
    attempt, triton = attributes(spans["attempt"]), attributes(spans["triton ModelInfer"])
    assert (attempt["forebay.attempt.number"], attempt["forebay.outcome"]) == (1, "ok")
    assert attempt["forebay.node"] == "node-1"
    assert 0 <= attempt["forebay.queue_wait_s"] < 60
    assert triton["forebay.replica"] == attempt["forebay.replica"]
    assert (triton["server.address"], triton["rpc.response.status_code"]) == ("127.0.0.1", "OK")
    assert attributes(spans["triton model"]) == {
        "triton.model_name": "said",
        "triton.model_version": 1,
    }
    for service in ("forebay-router", "forebay-node-agent"):
        said = receiver.resources[service]
        assert said["service.version"]
        assert len(said["service.instance.id"]) == 36
        assert said["host.name"]
    assert receiver.resources["triton"]["forebay.node"] == "node-1"


async def both_ends(receiver: OtlpReceiver, trace_id: str | None) -> tuple[Span, Span]:
    """The spans of a call at its client and at the router, which send them on their own."""

    def both() -> tuple[Span, Span]:
        found = [span for span in receiver.named(SERVER) if span.trace_id.hex() == trace_id]
        kinds = {span.kind: span for span in found}
        assert len(found) == 2
        return kinds[Span.SPAN_KIND_CLIENT], kinds[Span.SPAN_KIND_SERVER]

    return await eventually(both, timeout_s=60)


async def spans_about(
    receiver: OtlpReceiver, name: str, key: str, value: object, count: int = 1
) -> list[Span]:
    """So many spans of a name that say the same of something, oldest first, once they came."""

    def came() -> list[Span]:
        found = [span for span in receiver.named(name) if attributes(span).get(key) == value]
        assert len(found) == count
        return sorted(found, key=lambda span: span.start_time_unix_nano)

    return await eventually(came, timeout_s=60)


async def test_the_client_library_begins_the_trace(
    client: forebay.Client, receiver: OtlpReceiver
) -> None:
    result = client.infer("said", word("x"), timeout_s=60)
    assert result.trace_id is not None
    await whole(receiver, result.trace_id)
    root, server = await both_ends(receiver, result.trace_id)
    assert [service for service, span in list(receiver.spans) if span is root] == ["forebay-client"]
    assert server.parent_span_id == root.span_id
    assert not root.parent_span_id
    assert attributes(root)["forebay.request.id"] == result.request_id
    assert attributes(root)["server.port"] == int(client.address.rpartition(":")[2])


async def test_a_trace_that_the_caller_began_goes_on(
    mesh: ForebayUp, receiver: OtlpReceiver
) -> None:
    trace_id = "ab" * 16
    trailers = call(mesh, b"x", f"00-{trace_id}-{'cd' * 8}-01")
    assert trailers["forebay-trace-id"] == trace_id
    spans = await whole(receiver, trace_id)
    assert spans[SERVER].parent_span_id.hex() == "cd" * 8


async def test_a_trace_that_the_caller_does_not_sample_is_not_recorded(
    mesh: ForebayUp, receiver: OtlpReceiver
) -> None:
    unsampled, sampled = "11" * 16, "22" * 16
    trailers = call(mesh, b"x", f"00-{unsampled}-{'cd' * 8}-00")
    # Its context travels all the same.
    assert trailers["forebay-trace-id"] == unsampled
    call(mesh, b"x", f"00-{sampled}-{'cd' * 8}-01")
    # Triton sends both together, if it traced both.
    await whole(receiver, sampled)
    assert not receiver.trace(unsampled)


async def test_a_model_that_raises_marks_every_span_it_fails(
    client: forebay.Client, mesh: ForebayUp, receiver: OtlpReceiver
) -> None:
    with pytest.raises(forebay.ModelError) as caught:
        client.infer("said", word("raise"), timeout_s=60)
    trace_id = caught.value.trace_id
    assert trace_id is not None
    spans = await whole(receiver, trace_id)
    await both_ends(receiver, trace_id)
    ours = [span for _, span in list(receiver.spans) if span.trace_id.hex() == trace_id]
    marked = {(span.name, span.kind) for span in ours if failed(span)}
    assert marked == {
        (SERVER, Span.SPAN_KIND_CLIENT),
        (SERVER, Span.SPAN_KIND_SERVER),
        ("attempt", Span.SPAN_KIND_CONSUMER),
        ("triton ModelInfer", Span.SPAN_KIND_CLIENT),
    }
    for span in ours:
        if failed(span):
            assert attributes(span)["error.type"] == "INTERNAL"
            assert span.status.message == model_messages.WITHHELD
    assert attributes(spans["attempt"])["forebay.outcome"] == "internal"
    logs = Path(mesh.state_dir / "logs")
    for service in ("router", "node-1"):
        file = logs / f"{service}.log"
        await eventually(lambda file=file: trace_id in file.read_text(), what=f"{service}'s line")
        text = file.read_text()
        assert "the model was told to raise" not in text, service


async def test_a_callers_mistake_is_an_error_of_the_caller_and_not_of_the_mesh(
    client: forebay.Client, receiver: OtlpReceiver
) -> None:
    with pytest.raises(forebay.DeploymentNotFoundError) as caught:
        client.infer("nowhere", word("x"), timeout_s=60)
    trace_id = caught.value.trace_id
    at_client, at_server = await both_ends(receiver, trace_id)
    assert failed(at_client)
    assert not failed(at_server)
    assert attributes(at_server)["rpc.response.status_code"] == "NOT_FOUND"
    assert attributes(at_server)["forebay.outcome"] == "not_found"


async def test_who_waited_for_a_cold_start_links_to_it_and_to_its_decision(
    mesh: ForebayUp, receiver: OtlpReceiver
) -> None:
    first = await whole(receiver, call(mesh, b"x", name="cold")["forebay-trace-id"], "triton")
    (link,) = first["queue wait"].links
    starts = [s for s in receiver.named("cold start") if s.span_id == link.span_id]
    (start,) = starts
    about = attributes(start)
    assert (about["forebay.deployment"], about["forebay.start.number"]) == ("cold", 1)
    assert about["forebay.replica"] == attributes(first["attempt"])["forebay.replica"]
    assert attributes(link)["forebay.link"] == "cold start"
    steps = [s for _, s in list(receiver.spans) if s.parent_span_id == start.span_id]
    assert [s.name for s in sorted(steps, key=lambda s: s.start_time_unix_nano)] == [
        "model fetch",
        "triton load",
        "canary",
    ]
    for step in steps:
        assert step.start_time_unix_nano >= start.start_time_unix_nano
        assert step.end_time_unix_nano <= start.end_time_unix_nano
    # It waited for the start, so it waited until the start was over.
    wait = first["queue wait"]
    assert wait.start_time_unix_nano < start.start_time_unix_nano < start.end_time_unix_nano
    assert wait.end_time_unix_nano >= start.end_time_unix_nano - SLACK_NS
    decision = about["forebay.scale_decision"]
    for name in ("queue wait", "attempt"):
        said = attributes(first[name])
        assert (said["forebay.cold_start"], said["forebay.scale_decision"]) == (True, decision)
    (decided,) = await spans_about(receiver, "scale decision", "forebay.scale_decision", decision)
    assert start.parent_span_id == decided.span_id
    # Whoever comes later did not wait for it.
    second = await whole(receiver, call(mesh, b"x", name="cold")["forebay-trace-id"])
    assert not second["queue wait"].links
    assert "forebay.cold_start" not in attributes(second["attempt"])


async def test_a_task_is_a_trace_of_its_submission_and_one_for_each_attempt(
    client: forebay.Client, receiver: OtlpReceiver
) -> None:
    task = client.submit("said", word("raise"), max_retries=1, min_backoff_s=0.01)
    with pytest.raises(forebay.ForebayError):
        task.result(timeout_s=30)
    task_id = task.name.rpartition("/")[2]
    first, second = await spans_about(receiver, "task attempt", "forebay.task.id", task_id, 2)
    (publish,) = await spans_about(receiver, "publish task", "forebay.task.id", task_id)
    whys = [[attributes(link)["forebay.link"] for link in span.links] for span in (first, second)]
    assert whys == [["submission"], ["submission", "attempt before"]]
    assert len({span.trace_id for span in (publish, first, second)}) == 3
    for span in (first, second):
        assert span.links[0].span_id == publish.span_id
        assert failed(span)
        assert not span.parent_span_id
    assert (second.links[1].trace_id, second.links[1].span_id) == (first.trace_id, first.span_id)
    inside = {"task attempt", "triton ModelInfer", "triton InferRequest", "triton model"}
    inside |= {"triton compute", "settle task"}

    def all_inside() -> bool:
        found = set(receiver.trace(second.trace_id.hex()))
        assert found == inside, f"missing {inside - found}, unexpected {found - inside}"
        return True

    await eventually(all_inside, timeout_s=60)
    submission = receiver.trace(publish.trace_id.hex())
    assert set(submission) == {"forebay.v1.TaskService/SubmitTask", "publish task"}


async def test_the_tasks_of_a_map_link_to_the_one_call_that_brought_them(
    client: forebay.Client, receiver: OtlpReceiver
) -> None:
    results = client.map("said", [word(f"mapped {n}") for n in range(12)])
    assert len(list(results)) == 12

    def calls() -> list[Span]:
        found = receiver.named("forebay.v1.TaskService/SubmitTasks")
        assert found
        return found

    (server,) = await eventually(calls, timeout_s=60)
    assert attributes(server)["forebay.task.count"] == 12

    def linked() -> list[Span]:
        found = [
            span
            for span in receiver.named("task attempt")
            if [link.span_id for link in span.links] == [server.span_id]
        ]
        assert len(found) == 12
        return found

    await eventually(linked, timeout_s=60)
    assert set(receiver.trace(server.trace_id.hex())) == {"forebay.v1.TaskService/SubmitTasks"}


NAMES = {
    *SERVICES,
    "cold start",
    "model fetch",
    "triton load",
    "canary",
    "scale decision",
    "forebay.v1.TaskService/SubmitTask",
    "forebay.v1.TaskService/SubmitTasks",
    "forebay.v1.TaskService/WaitTask",
    "forebay.v1.TaskService/GetTask",
    "forebay.v1.TaskService/WatchTasks",
    "publish task",
    "task attempt",
    "settle task",
}


async def test_names_of_services_and_spans_are_few_whatever_was_called(
    mesh: ForebayUp, receiver: OtlpReceiver
) -> None:
    # What two deployments, a dozen tasks and every test above have left.
    call(mesh, b"x")
    found = {(service, span.name) for service, span in list(receiver.spans)}
    assert {service for service, _ in found} <= {
        "forebay-client",
        "forebay-router",
        "forebay-autoscaler",
        "forebay-metrics",
        "forebay-node-agent",
        "triton",
    }
    assert {name for _, name in found} <= NAMES
