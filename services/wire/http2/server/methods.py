"""The methods of a server, by path, and how each of the four kinds is run."""

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import grpc

_MAX_FOUND = 1024
"""Paths that generic handlers took, which are remembered: a client may make up any number."""

if TYPE_CHECKING:
    from services.wire.http2.server.server_call import ServerCall

RawHandler = Callable[[Any], Awaitable[bytes]]
"""Called with the call's context once its request is there; `read` gives the serialised request.
Returns the serialised reply. It keeps the call's deadline itself."""


@dataclass(frozen=True, slots=True)
class Method:
    """One method.

    Attributes:
        serve: runs a call.
        begins_with_request: whether to wait for the first message before it is run.
        keeps_deadline: whether it ends by itself in time.
        deserialize: makes a message of what came.
        serialize: the other way round.
    """

    serve: Callable[["ServerCall"], Awaitable[None]]
    begins_with_request: bool
    keeps_deadline: bool
    deserialize: Callable[[bytes], Any] | None = None
    serialize: Callable[[Any], bytes] | None = None


@dataclass(frozen=True, slots=True)
class _CallDetails(grpc.HandlerCallDetails):  # type: ignore[misc]
    """What a generic handler is asked with."""

    method: str
    invocation_metadata: tuple[tuple[str, str | bytes], ...] = ()


class Methods:
    """Methods by path; takes what `add_…Servicer_to_server` of generated code brings."""

    def __init__(self) -> None:
        """None yet."""
        self._methods: dict[str, Method] = {}
        self._generic: list[grpc.GenericRpcHandler] = []

    def add_raw(self, path: str, handler: RawHandler) -> None:
        """Adds a unary method that gets and gives bytes."""
        self._methods[path] = Method(_raw(handler), begins_with_request=True, keeps_deadline=True)

    def add_registered_method_handlers(
        self, service: str, handlers: dict[str, grpc.RpcMethodHandler]
    ) -> None:
        """Adds the methods of a service by name; one that is there by its path stays."""
        for name, handler in handlers.items():
            self._methods.setdefault(f"/{service}/{name}", _method_of(handler))

    def add_generic_rpc_handlers(self, handlers: Iterable[grpc.GenericRpcHandler]) -> None:
        """Adds handlers that are asked for paths that no method is known for."""
        self._generic.extend(handlers)

    def find(self, path: str) -> Method | None:
        """The method of a path, or None if there is none."""
        method = self._methods.get(path)
        if method is not None:
            return method
        for generic in self._generic:
            handler = generic.service(_CallDetails(path))
            if handler is not None:
                method = _method_of(handler)
                if len(self._methods) < _MAX_FOUND:
                    self._methods[path] = method
                return method
        return None


def _method_of(handler: grpc.RpcMethodHandler) -> Method:
    serve = {
        (False, False): _unary_unary,
        (False, True): _unary_stream,
        (True, False): _stream_unary,
        (True, True): _stream_stream,
    }[handler.request_streaming, handler.response_streaming]
    return Method(
        serve(handler),
        begins_with_request=not handler.request_streaming,
        keeps_deadline=False,
        deserialize=handler.request_deserializer,
        serialize=handler.response_serializer,
    )


def _raw(handler: RawHandler) -> Callable[["ServerCall"], Awaitable[None]]:
    async def serve(call: "ServerCall") -> None:
        call.reply(await handler(call))

    return serve


def _unary_unary(handler: grpc.RpcMethodHandler) -> Callable[["ServerCall"], Awaitable[None]]:
    async def serve(call: "ServerCall") -> None:
        call.reply(await handler.unary_unary(await call.request(), call))

    return serve


def _unary_stream(handler: grpc.RpcMethodHandler) -> Callable[["ServerCall"], Awaitable[None]]:
    async def serve(call: "ServerCall") -> None:
        await call.stream(handler.unary_stream(await call.request(), call))

    return serve


def _stream_unary(handler: grpc.RpcMethodHandler) -> Callable[["ServerCall"], Awaitable[None]]:
    async def serve(call: "ServerCall") -> None:
        call.reply(await handler.stream_unary(call.requests(), call))

    return serve


def _stream_stream(handler: grpc.RpcMethodHandler) -> Callable[["ServerCall"], Awaitable[None]]:
    async def serve(call: "ServerCall") -> None:
        await call.stream(handler.stream_stream(call.requests(), call))

    return serve
