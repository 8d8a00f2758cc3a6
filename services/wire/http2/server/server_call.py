"""One call as its handler sees it: grpcio's `ServicerContext`, so that servicers need not know."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Any, NoReturn, Protocol

import grpc.aio
import structlog
from google.protobuf.message import DecodeError

from services.wire.http2.server import replies
from services.wire.http2.server.call_stream import CallStream
from services.wire.http2.server.call_streams import CallStreams
from services.wire.http2.server.messages import (
    BrokenMessageError,
    MessageTooLargeError,
    decompressed,
)
from services.wire.http2.server.methods import Method

log = structlog.get_logger()

MAX_UNSENT_BYTES = 64 * 1024
"""Of messages that a client does not take; a handler that writes more waits."""

Metadata = tuple[tuple[str, str | bytes], ...]


class Carrier(Protocol):
    """The connection of a call.

    Attributes:
        streams: what is said on it.
        loop: of the process.
        peer: address of the client, as grpcio writes it.
        max_message_bytes: largest message, decompressed.
    """

    streams: CallStreams
    loop: asyncio.AbstractEventLoop
    peer: str
    max_message_bytes: int

    def flush_soon(self) -> None:
        """Sends what was said in this turn of the event loop, at its end."""

    def forget(self, stream: CallStream) -> None:
        """A call has ended, or nobody waits for it any more."""


class ServerCall(grpc.aio.ServicerContext):  # type: ignore[misc]
    """One call, from its header block to its trailers."""

    def __init__(self, carrier: Carrier, stream: CallStream, method: Method) -> None:
        """A call that was not begun with."""
        self.task: asyncio.Task[None] | None = None
        self._carrier = carrier
        self._stream = stream
        self._method = method
        self._heard: asyncio.Future[None] | None = None
        self._sent: asyncio.Future[None] | None = None
        self._trailing: Metadata = ()
        self._initial: Metadata = ()
        self._code = grpc.StatusCode.OK
        self._details = ""
        self._timer: asyncio.TimerHandle | None = None
        timeout_s = stream.fields.timeout_s
        self._deadline_s = None if timeout_s is None else carrier.loop.time() + timeout_s

    # What the connection tells it.

    @property
    def may_begin(self) -> bool:
        """Whether there is enough of it to begin."""
        stream = self._stream
        return (
            not self._method.begins_with_request
            or bool(stream.reader.messages)
            or stream.half_closed
        )

    def begin(self) -> None:
        """Runs the handler."""
        if self._timer is not None and self._method.keeps_deadline:
            self._timer.cancel()
            self._timer = None
        self.watch_deadline(self._method.keeps_deadline)
        self.task = self._carrier.loop.create_task(self._serve())

    def watch_deadline(self, kept: bool = False) -> None:
        """Ends the call when its time is up, unless its handler keeps the deadline."""
        if self._deadline_s is not None and self._timer is None and not kept:
            self._timer = self._carrier.loop.call_at(self._deadline_s, self._expire)

    def heard(self) -> None:
        """A message is complete, or the client has said all."""
        if self.task is None:
            self.begin()
        elif self._heard is not None and not self._heard.done():
            self._heard.set_result(None)

    def sent(self) -> None:
        """What was kept of its messages was sent."""
        if self._sent is not None and not self._sent.done():
            self._sent.set_result(None)

    def gone(self) -> None:
        """Nobody waits for it any more."""
        if self.task is not None:
            self.task.cancel()
        # A task that is cancelled before it has run never comes to its end.
        self._forget()

    def break_off(self, code: grpc.StatusCode, details: str) -> None:
        """Ends it with a status, whatever its handler does."""
        self._end(code, details, self._trailing)
        self.gone()

    # What handlers of (de)serialised messages are run with.

    async def request(self) -> Any:
        """The one message of a unary request."""
        message = await self.read()
        if message is grpc.aio.EOF:
            await self.abort(grpc.StatusCode.INVALID_ARGUMENT, "the call ended without a request")
        return message

    async def requests(self) -> AsyncIterator[Any]:
        """The messages as they come."""
        while (message := await self.read()) is not grpc.aio.EOF:
            yield message

    def reply(self, response: Any) -> None:
        """Answers with one message and ends the call."""
        message = self._serialized(response)
        code, details = self._code.value[0], self._details
        if code == 0 and not self._initial:
            block = replies.trailers(code, details, self._trailing)
            self._carrier.streams.sending.reply(self._stream, message, block)
        else:
            self._send(message)
            self._end(self._code, self._details, self._trailing)
        self._carrier.flush_soon()

    async def stream(self, responses: Any) -> None:
        """Answers with messages as they come, and ends the call."""
        if hasattr(responses, "__aiter__"):
            async for response in responses:
                await self.write(response)
        else:
            # A handler that writes by itself.
            await responses
        self._end(self._code, self._details, self._trailing)

    # grpcio's ServicerContext.

    async def read(self) -> Any:
        """The next message, or grpc.aio.EOF."""
        reader = self._stream.reader
        while not reader.messages:
            if self._stream.half_closed:
                return grpc.aio.EOF
            self._heard = self._carrier.loop.create_future()
            await self._heard
        compressed, message = self._carrier.streams.read(self._stream)
        if not self._stream.half_closed:
            self._carrier.flush_soon()
        if compressed:
            message = await self._decompressed(message)
        if self._method.deserialize is None:
            return message
        try:
            return self._method.deserialize(message)
        except DecodeError as error:
            await self.abort(
                grpc.StatusCode.INTERNAL,
                f"the client sent a message that is none of this method's: {error}",
            )

    async def write(self, message: Any) -> None:
        """Sends a message; waits while the client takes none."""
        self._send(self._serialized(message))
        self._carrier.flush_soon()
        while self._stream.unsent_bytes > MAX_UNSENT_BYTES:
            self._sent = self._carrier.loop.create_future()
            await self._sent

    async def send_initial_metadata(self, initial_metadata: Metadata) -> None:
        """Sends metadata before the first message."""
        self._initial = tuple(initial_metadata)
        self._begin()
        self._carrier.flush_soon()

    async def abort(
        self, code: grpc.StatusCode, details: str = "", trailing_metadata: Metadata = ()
    ) -> NoReturn:
        """Ends the call with an error.

        Raises:
            grpc.aio.AbortError: always.
        """
        self._end(code, details, tuple(trailing_metadata) or self._trailing)
        raise grpc.aio.AbortError(f"aborted with {code.name}")

    def set_trailing_metadata(self, trailing_metadata: Metadata) -> None:
        """What goes with the status."""
        self._trailing = tuple(trailing_metadata)

    def invocation_metadata(self) -> Metadata:
        """What the client sent along."""
        return self._stream.fields.metadata

    def time_remaining(self) -> float | None:
        """Seconds until the caller's deadline; None without one."""
        if self._deadline_s is None:
            return None
        return max(0.0, self._deadline_s - self._carrier.loop.time())

    def set_code(self, code: grpc.StatusCode) -> None:
        """The status that the call ends with."""
        self._code = code

    def set_details(self, details: str) -> None:
        """The text that goes with it."""
        self._details = details

    def set_compression(self, compression: grpc.Compression) -> None:
        """Replies are not compressed, which every client takes."""

    def disable_next_message_compression(self) -> None:
        """Replies are not compressed."""

    def peer(self) -> str:
        """Address of the client, as grpcio writes it."""
        return self._carrier.peer

    def peer_identities(self) -> Iterable[bytes] | None:
        """None: the connection is plain text."""
        return None

    def peer_identity_key(self) -> str | None:
        """None: the connection is plain text."""
        return None

    def auth_context(self) -> Mapping[str, Iterable[bytes]]:
        """Empty: the connection is plain text."""
        return {}

    def cancelled(self) -> bool:
        """Whether nobody waits for it any more."""
        return self._stream.closed

    async def _serve(self) -> None:
        try:
            await self._method.serve(self)
        except grpc.aio.AbortError:
            # Its status was sent when it was raised.
            return
        except asyncio.CancelledError:
            self._end(grpc.StatusCode.CANCELLED, "the call was cancelled", self._trailing)
            raise
        except Exception as error:
            log.exception("grpc.handler_failed", method=self._stream.fields.path)
            details = f"the server failed on this call: {type(error).__name__}; its log has more"
            self._end(grpc.StatusCode.UNKNOWN, details, self._trailing)
        finally:
            self._forget()

    def _expire(self) -> None:
        self.break_off(grpc.StatusCode.DEADLINE_EXCEEDED, "the call's deadline has passed")

    def _forget(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._carrier.forget(self._stream)

    def _begin(self) -> None:
        if not self._stream.answered:
            block = replies.metadata_fields(self._initial)
            self._carrier.streams.sending.begin(self._stream, block)

    def _send(self, message: bytes) -> None:
        self._begin()
        self._carrier.streams.sending.message(self._stream, message)

    def _end(self, code: grpc.StatusCode, details: str, trailing: Metadata) -> None:
        block = replies.trailers(code.value[0], details, trailing)
        self._carrier.streams.sending.end(self._stream, block)
        self._carrier.flush_soon()

    def _serialized(self, message: Any) -> bytes:
        if self._method.serialize is None:
            raw: bytes = message
            return raw
        return self._method.serialize(message)

    async def _decompressed(self, message: bytes) -> bytes:
        try:
            return decompressed(
                message, self._stream.fields.encoding, self._carrier.max_message_bytes
            )
        except BrokenMessageError as error:
            await self.abort(grpc.StatusCode.INTERNAL, f"the client sent {error}")
        except MessageTooLargeError as error:
            await self.abort(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"the client sent a message that is over {self._carrier.max_message_bytes} bytes "
                f"decompressed ({error.size_bytes} and more). Send less in one call",
            )
