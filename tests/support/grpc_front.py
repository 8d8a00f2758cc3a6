"""The event loop's own gRPC server with handlers that do what their names say."""

import asyncio
import functools
import gc
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio
import pytest
import uvloop

from services.wire.http2.server.call_stream import CallStream
from services.wire.http2.server.grpc_server import GrpcServer
from services.wire.http2.server.server_call import ServerCall

LIMIT = 9 * 1024 * 1024

Context = grpc.aio.ServicerContext


def on_both_loops(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Runs a test on asyncio's loop and on uvloop, which services run on."""

    def played(run: Callable[[Awaitable[None]], None], **arguments: Any) -> None:
        run(test(**arguments))

    functools.update_wrapper(played, test)
    run = inspect.Parameter("run", inspect.Parameter.KEYWORD_ONLY)
    own = inspect.signature(test)
    played.__signature__ = own.replace(  # type: ignore[attr-defined]
        parameters=[*own.parameters.values(), run]
    )
    loops = [pytest.param(asyncio.run, id="asyncio"), pytest.param(uvloop.run, id="uvloop")]
    return pytest.mark.parametrize("run", loops)(played)


class Handlers(grpc.GenericRpcHandler):
    """Methods `/test/<name>`; those named here serve bytes.

    Attributes:
        waiting: how many handlers wait for ever.
        cancelled: how many were cancelled.
        seen: metadata of the last call.
        written: messages that `flood` has written.
    """

    def __init__(self) -> None:
        self.waiting = 0
        self.cancelled = 0
        self.seen: dict[str, Any] = {}
        self.remaining_s: float | None = None
        self.written = 0
        self.release = asyncio.Event()
        self._methods = {
            "echo": grpc.unary_unary_rpc_method_handler(self.echo),
            "fail": grpc.unary_unary_rpc_method_handler(self.fail),
            "wait": grpc.unary_unary_rpc_method_handler(self.wait),
            "held": grpc.unary_unary_rpc_method_handler(self.held),
            "metadata": grpc.unary_unary_rpc_method_handler(self.metadata),
            "count": grpc.unary_stream_rpc_method_handler(self.count),
            "flood": grpc.unary_stream_rpc_method_handler(self.flood),
            "join": grpc.stream_unary_rpc_method_handler(self.join),
            "upper": grpc.stream_stream_rpc_method_handler(self.upper),
        }

    def add(self, name: str, handler: grpc.RpcMethodHandler) -> None:
        self._methods[name] = handler

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        service, _, name = details.method.lstrip("/").partition("/")
        return self._methods.get(name) if service == "test" else None

    async def echo(self, body: bytes, context: Context) -> bytes:
        self.remaining_s = context.time_remaining()
        return body

    async def fail(self, body: bytes, context: Context) -> None:
        number, _, text = body.decode().partition(" ")
        status = next(status for status in grpc.StatusCode if status.value[0] == int(number))
        await context.abort(status, text, (("why", "asked"), ("more-bin", b"\x00\xff")))

    async def wait(self, _: bytes, __: Context) -> None:
        self.waiting += 1
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.waiting -= 1

    async def held(self, body: bytes, _: Context) -> bytes:
        self.waiting += 1
        await self.release.wait()
        self.waiting -= 1
        return body

    async def metadata(self, body: bytes, context: Context) -> bytes:
        self.seen = dict(context.invocation_metadata())
        await context.send_initial_metadata((("first", "1"), ("first-bin", b"\x01\x00")))
        context.set_trailing_metadata((("last", "2"), ("last-bin", b"\x02\x00")))
        return body

    async def count(self, body: bytes, _: Context) -> AsyncIterator[bytes]:
        for index in range(int(body)):
            yield str(index).encode()

    async def flood(self, body: bytes, _: Context) -> AsyncIterator[bytes]:
        self.waiting += 1
        try:
            message = bytes(int(body))
            while True:
                yield message
                self.written += 1
        finally:
            self.waiting -= 1

    async def join(self, requests: AsyncIterator[bytes], _: Context) -> bytes:
        return b"+".join([request async for request in requests])

    async def upper(self, requests: AsyncIterator[bytes], _: Context) -> AsyncIterator[bytes]:
        self.waiting += 1
        try:
            async for request in requests:
                yield request.upper()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.waiting -= 1


class Front:
    """A server that listens.

    Attributes:
        server: itself.
        handlers: what it serves.
        port: where.
        errors: what the loop was told that nobody else looks at.
    """

    def __init__(self, server: GrpcServer, handlers: Handlers, port: int) -> None:
        self.server = server
        self.handlers = handlers
        self.port = port
        self.errors: list[dict[str, Any]] = []

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def connections(self) -> list[Any]:
        return list(self.server._connections.open)

    def channel(self, *options: tuple[str, Any]) -> grpc.aio.Channel:
        return grpc.aio.insecure_channel(
            self.address,
            options=[("grpc.use_local_subchannel_pool", 1), *UNLIMITED, *options],
        )


UNLIMITED = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
]


async def begin(handlers: Handlers, port: int = 0, limit: int = LIMIT) -> Front:
    """A server of these handlers."""
    server = GrpcServer(limit)
    server.add_generic_rpc_handlers((handlers,))
    port = server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    return Front(server, handlers, port)


@asynccontextmanager
async def serving(limit: int = LIMIT) -> AsyncIterator[Front]:
    """A server; fails if it leaves a connection or a task, or an error that nobody looks at."""
    loop = asyncio.get_running_loop()
    before = asyncio.all_tasks()
    front = await begin(Handlers(), limit=limit)
    errors = front.errors
    loop.set_exception_handler(lambda _, context: errors.append(context))
    try:
        yield front
    finally:
        await front.server.stop(0)
    left = [task for task in asyncio.all_tasks() - before if "_serve" in repr(task)]
    assert not front.connections
    assert not left
    del front
    gc.collect()
    await asyncio.sleep(0)
    assert not errors, repr(errors[0])


def alive() -> int:
    """How many calls are in memory."""
    gc.collect()
    return sum(isinstance(thing, ServerCall | CallStream) for thing in gc.get_objects())


def unary(channel: grpc.aio.Channel, name: str) -> Any:
    return channel.unary_unary(f"/test/{name}")
