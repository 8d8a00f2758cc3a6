"""What callers are told when a handler does what it should not, and handlers of generated code."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
import pytest
import structlog
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from forebay.v1 import task_pb2 as api
from forebay.v1.task_pb2_grpc import (
    TaskServiceServicer,
    TaskServiceStub,
    add_TaskServiceServicer_to_server,
)
from services.runtime.health import Health
from tests.support.eventually import eventually
from tests.support.grpc_front import Context, Front, on_both_loops, serving, unary

Status = grpc.StatusCode


async def refused(call: Any) -> grpc.aio.AioRpcError:
    """The error that a call ends with."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await (drained(call) if hasattr(call, "__aiter__") else call)
    return caught.value


async def drained(call: Any) -> None:
    async for _ in call:
        pass


def add_unary(front: Front, handler: Any) -> None:
    front.handlers.add("own", grpc.unary_unary_rpc_method_handler(handler))


class Misuse:
    """Handlers that do what they should not."""

    async def raises(self, body: bytes, context: Context) -> bytes:
        raise ValueError("secret")

    async def raises_with_a_status(self, body: bytes, context: Context) -> bytes:
        context.set_code(Status.NOT_FOUND)
        context.set_details("no such thing")
        raise ValueError("secret")

    async def returns_nothing(self, body: bytes, context: Context) -> None:
        return None

    async def returns_text(self, body: bytes, context: Context) -> str:
        return "text"

    async def returns_with_a_status(self, body: bytes, context: Context) -> bytes:
        context.set_code(Status.FAILED_PRECONDITION)
        context.set_details("not yet")
        return b"answer"

    async def aborts_with_ok(self, body: bytes, context: Context) -> None:
        await context.abort(Status.OK, "fine")

    async def aborts_with_what_is_none(self, body: bytes, context: Context) -> None:
        await context.abort("NOT_FOUND", "fine")

    async def aborts_with_a_number(self, body: bytes, context: Context) -> None:
        await context.abort(5, "fine")

    async def aborts_by_hand(self, body: bytes, context: Context) -> None:
        raise grpc.aio.AbortError("by hand")

    async def goes_on_after_abort(self, body: bytes, context: Context) -> bytes:
        try:
            await context.abort(Status.ABORTED, "first")
        except grpc.aio.AbortError:
            return b"answer"

    async def aborts_twice(self, body: bytes, context: Context) -> None:
        try:
            await context.abort(Status.ABORTED, "first")
        except grpc.aio.AbortError:
            await context.abort(Status.NOT_FOUND, "second")

    async def sets_what_is_no_metadata(self, body: bytes, context: Context) -> bytes:
        context.set_trailing_metadata((("count", 1),))
        return b"answer"

    async def aborts_with_what_is_no_metadata(self, body: bytes, context: Context) -> bytes:
        context.set_trailing_metadata((("key", "value"),))
        await context.abort(Status.ABORTED, "text", (("count", None),))

    async def sends_what_is_no_metadata(self, body: bytes, context: Context) -> bytes:
        await context.send_initial_metadata((("count", 1),))
        return b"answer"

    async def sets_details_that_are_no_text(self, body: bytes, context: Context) -> bytes:
        context.set_details(7)
        return b"answer"

    async def cancels_itself(self, body: bytes, context: Context) -> None:
        raise asyncio.CancelledError

    def does_not_wait(self, body: bytes, context: Context) -> bytes:
        return b"answer"


@pytest.mark.parametrize(
    ("misuse", "code", "text"),
    [
        ("raises", Status.UNKNOWN, "the server failed on this call: ValueError"),
        ("raises_with_a_status", Status.NOT_FOUND, "no such thing"),
        ("returns_nothing", Status.UNKNOWN, "TypeError"),
        ("returns_text", Status.UNKNOWN, "TypeError"),
        ("returns_with_a_status", Status.FAILED_PRECONDITION, "not yet"),
        ("aborts_with_ok", Status.UNKNOWN, "fine"),
        ("aborts_with_what_is_none", Status.UNKNOWN, "fine"),
        ("aborts_with_a_number", Status.NOT_FOUND, "fine"),
        ("aborts_by_hand", Status.UNKNOWN, "AbortError"),
        ("goes_on_after_abort", Status.ABORTED, "first"),
        ("aborts_twice", Status.ABORTED, "first"),
        ("sets_what_is_no_metadata", Status.UNKNOWN, "AttributeError"),
        ("aborts_with_what_is_no_metadata", Status.UNKNOWN, "AttributeError"),
        ("sends_what_is_no_metadata", Status.UNKNOWN, "AttributeError"),
        ("sets_details_that_are_no_text", Status.UNKNOWN, "7"),
        ("cancels_itself", Status.CANCELLED, "cancelled"),
        ("does_not_wait", Status.UNKNOWN, "TypeError"),
    ],
)
@on_both_loops
async def test_a_handler_that_fails_is_answered_for(
    misuse: str, code: grpc.StatusCode, text: str
) -> None:
    async with serving() as front, front.channel() as channel:
        add_unary(front, getattr(Misuse(), misuse))
        error = await refused(unary(channel, "own")(b"", timeout=60))
        assert error.code() == code
        assert text in error.details()
        assert "secret" not in error.details()
        assert await unary(channel, "echo")(b"x") == b"x", "the connection is of use"


@on_both_loops
async def test_a_stream_that_fails_midway_brings_what_came_before() -> None:
    async def own(body: bytes, context: Context) -> AsyncIterator[bytes]:
        yield b"one"
        yield b"two"
        await context.abort(Status.DATA_LOSS, "the rest is gone", (("key", "value"),))

    async def wrong(body: bytes, context: Context) -> AsyncIterator[Any]:
        yield b"one"
        yield 2

    async with serving() as front, front.channel() as channel:
        for handler, code, count in ((own, Status.DATA_LOSS, 2), (wrong, Status.UNKNOWN, 1)):
            front.handlers.add(handler.__name__, grpc.unary_stream_rpc_method_handler(handler))
            call = channel.unary_stream(f"/test/{handler.__name__}")(b"")
            got = [await call.read() for _ in range(count)]
            assert got == [b"one", b"two"][:count]
            assert await call.code() == code


@on_both_loops
async def test_a_handler_that_will_not_be_cancelled_keeps_its_caller_not_waiting() -> None:
    reached: list[str] = []

    async def own(body: bytes, context: Context) -> bytes:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            reached.append("cancelled")
        try:
            await context.write(b"too late")
        finally:
            reached.append("ended")

    async with serving() as front, front.channel() as channel:
        add_unary(front, own)
        await unary(channel, "echo")(b"connected")
        error = await refused(unary(channel, "own")(b"", timeout=1.5))
        assert error.code() == Status.DEADLINE_EXCEEDED
        await eventually(lambda: reached == ["cancelled", "ended"])


@on_both_loops
async def test_a_handler_that_aborts_a_call_that_was_cancelled_fills_no_log() -> None:
    reached: list[str] = []

    async def own(body: bytes, context: Context) -> bytes:
        reached.append("begun")
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            # As a library does that makes an error of its own of it.
            await context.abort(Status.UNAVAILABLE, "the queue is away")
        finally:
            reached.append("ended")
        return b""

    async with serving() as front, front.channel() as channel:
        add_unary(front, own)
        call = unary(channel, "own")(b"")
        await eventually(lambda: reached == ["begun"])
        with structlog.testing.capture_logs() as lines:
            call.cancel()
            await eventually(lambda: reached == ["begun", "ended"])
        assert not lines


@on_both_loops
async def test_a_handler_that_reads_on_after_its_call_has_ended_is_not_left_waiting() -> None:
    reached: list[str] = []

    async def own(requests: AsyncIterator[bytes], context: Context) -> bytes:
        for attempt in ("first", "second", "third"):
            try:
                await context.read()
            except asyncio.CancelledError:
                reached.append(attempt)
        return b""

    async with serving() as front, front.channel() as channel:
        front.handlers.add("own", grpc.stream_unary_rpc_method_handler(own))
        call = channel.stream_unary("/test/own")()
        await eventually(lambda: front.connections and front.connections[0].calls)
        call.cancel()
        await eventually(lambda: reached == ["first", "second", "third"])


@on_both_loops
async def test_a_task_of_a_handler_that_reads_is_not_left_waiting() -> None:
    ended = asyncio.Event()

    async def own(requests: AsyncIterator[bytes], context: Context) -> AsyncIterator[bytes]:
        async def read() -> None:
            try:
                async for _ in requests:
                    pass
            finally:
                ended.set()

        reading = asyncio.ensure_future(read())
        yield b"begun"
        try:
            await asyncio.shield(reading)
        finally:
            await asyncio.wait([reading])

    async with serving() as front, front.channel() as channel:
        front.handlers.add("own", grpc.stream_stream_rpc_method_handler(own))
        call = channel.stream_stream("/test/own")()
        assert await call.read() == b"begun"
        call.cancel()
        await asyncio.wait_for(ended.wait(), 30)


@on_both_loops
async def test_a_handler_may_end_without_reading() -> None:
    async def own(requests: AsyncIterator[bytes], context: Context) -> bytes:
        return b"enough"

    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield bytes(10_000)
            await asyncio.sleep(0)

    async with serving() as front, front.channel() as channel:
        front.handlers.add("own", grpc.stream_unary_rpc_method_handler(own))
        for _ in range(20):
            assert await channel.stream_unary("/test/own")(endless()) == b"enough"
        assert await unary(channel, "echo")(b"x") == b"x"
        await eventually(lambda: not front.connections[0].streams.open)


@on_both_loops
async def test_a_stream_is_closed_when_its_caller_goes_while_it_writes() -> None:
    async with serving() as front, front.channel() as channel:
        call = channel.unary_stream("/test/flood")(b"100000")
        assert len(await call.read()) == 100_000
        await eventually(lambda: front.handlers.written > 1)
        call.cancel()
        await eventually(lambda: front.handlers.waiting == 0)


class Tasks(TaskServiceServicer):  # type: ignore[misc]
    """A part of the service; generated code has the rest."""

    async def SubmitTasks(
        self, requests: AsyncIterator[api.SubmitTasksRequest], context: Context
    ) -> AsyncIterator[api.SubmitTasksResponse]:
        async for _ in requests:
            yield api.SubmitTasksResponse()

    async def CancelTask(self, request: api.CancelTaskRequest, context: Context) -> Any:
        return api.CancelTaskResponse(task=api.Task(name=request.name))

    async def RetryTask(self, request: api.RetryTaskRequest, context: Context) -> Any:
        return request


@on_both_loops
async def test_generated_code_works_unchanged() -> None:
    async with serving() as front, front.channel() as channel:
        add_TaskServiceServicer_to_server(Tasks(), front.server)
        stub = TaskServiceStub(channel)
        answer = await stub.CancelTask(api.CancelTaskRequest(name="a/b"))
        assert answer.task.name == "a/b"
        requests = [api.SubmitTasksRequest()] * 3
        assert len([r async for r in stub.SubmitTasks(iter(requests))]) == 3
        error = await refused(stub.GetTask(api.GetTaskRequest()))
        assert (error.code(), error.details()) == (
            Status.UNIMPLEMENTED,
            "Method not implemented!",
        )
        error = await refused(stub.WatchTasks(api.WatchTasksRequest()))
        assert error.code() == Status.UNIMPLEMENTED
        broken = channel.unary_unary("/forebay.v1.TaskService/CancelTask")(b"\xff\xff")
        error = await refused(broken)
        assert error.code() == Status.INTERNAL
        assert "none of this method's" in error.details()


@on_both_loops
async def test_health_is_told_and_followed() -> None:
    serving_, stopped = (
        health_pb2.HealthCheckResponse.SERVING,
        health_pb2.HealthCheckResponse.NOT_SERVING,
    )
    async with serving() as front, front.channel() as channel:
        health = Health(front.server, ["a.Service"])
        await health.set_serving(False)
        stub = health_pb2_grpc.HealthStub(channel)
        request = health_pb2.HealthCheckRequest(service="a.Service")
        assert (await stub.Check(request)).status == stopped
        watch = stub.Watch(request)
        assert (await watch.read()).status == stopped
        await health.set_serving(True)
        assert (await watch.read()).status == serving_
        await health.set_serving(False)
        assert (await watch.read()).status == stopped
        error = await refused(stub.Check(health_pb2.HealthCheckRequest(service="other")))
        assert error.code() == Status.NOT_FOUND
        watch.cancel()
        await eventually(lambda: not front.connections[0].calls)


@on_both_loops
async def test_reflection_lists_the_services() -> None:
    async with serving() as front, front.channel() as channel:
        Health(front.server, ["forebay.v1.TaskService"])
        call = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo()
        await call.write(reflection_pb2.ServerReflectionRequest(list_services="*"))
        listed = (await call.read()).list_services_response.service
        assert {"forebay.v1.TaskService", "grpc.health.v1.Health"} <= {s.name for s in listed}
        await call.write(
            reflection_pb2.ServerReflectionRequest(file_containing_symbol="forebay.v1.TaskService")
        )
        assert (await call.read()).file_descriptor_response.file_descriptor_proto
        await call.done_writing()
        assert await call.code() == Status.OK
