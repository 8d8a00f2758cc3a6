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

TURN_BYTES = 64 * 1024
"""A handler that has written so much at a stretch lets others run, and its messages be sent."""

_MESSAGE_COST_BYTES = 512
"""What a message of no bytes counts of it."""

_CANCELLED, _UNKNOWN, _MAX_CODE = 1, 2, 16
"""Status codes of gRPC."""

Metadata = tuple[tuple[str, str | bytes], ...]


class Carrier(Protocol):
    """The connection of a call.

    Attributes:
        streams: what is said on it.
        loop: of the process.
        peer: address of the client, such as `ipv4:10.0.0.5:40210`.
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
        self._written_bytes = 0
        self._trailing: Metadata = ()
        self._initial: Metadata = ()
        self._code = 0
        self._details = ""
        self._ended = False
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
        if len(self._stream.reader.messages) > 1 and self._method.begins_with_request:
            # Nobody would take them out, and small ones cost many times what was sent.
            self.break_off(grpc.StatusCode.INTERNAL, "this method takes one message a call")
        elif self.task is None:
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
        # A task of the handler's own may read or write for it.
        for waited in (self._heard, self._sent):
            if waited is not None and not waited.done():
                waited.cancel()
        # A task that is cancelled before it has run never comes to its end.
        self._forget()

    def break_off(self, code: grpc.StatusCode, details: str) -> None:
        """Ends it with a status, whatever its handler does."""
        # Its status would wait behind messages that the client does not take.
        self._carrier.streams.sending.forget(self._stream)
        self._ended = False
        self._end_anyway(code.value[0], details)
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
        if self._ended:
            return
        if self._code:
            # A call that fails has no answer, whatever its handler returns.
            self._end(self._code, self._details, self._trailing)
            return
        message = self._serialized(response)
        block = replies.trailers(0, self._details, self._trailing)
        self._ended = True
        self._carrier.streams.sending.reply(self._stream, message, block)
        self._carrier.flush_soon()

    async def stream(self, responses: Any) -> None:
        """Answers with messages as they come, and ends the call."""
        if hasattr(responses, "__aiter__"):
            try:
                async for response in responses:
                    await self.write(response)
            finally:
                # Left to the garbage collector, a handler would end some time after its call.
                if hasattr(responses, "aclose"):
                    await responses.aclose()
        else:
            # A handler that writes by itself.
            await responses
        self._end(self._code, self._details, self._trailing)

    # grpcio's ServicerContext.

    async def read(self) -> Any:
        """The next message, or grpc.aio.EOF."""
        reader = self._stream.reader
        while not reader.messages:
            self._check_open()
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
        self._check_open()
        body = self._serialized(message)
        self._begin()
        self._carrier.streams.sending.message(self._stream, body)
        self._carrier.flush_soon()
        self._written_bytes += len(body) + _MESSAGE_COST_BYTES
        if self._written_bytes > TURN_BYTES:
            self._written_bytes = 0
            await asyncio.sleep(0)
        while self._stream.unsent_bytes > MAX_UNSENT_BYTES:
            self._check_open()
            self._sent = self._carrier.loop.create_future()
            await self._sent

    async def send_initial_metadata(self, initial_metadata: Metadata) -> None:
        """Sends metadata before the first message.

        Raises:
            grpc.aio.UsageError: if it is too late for that.
        """
        if self._stream.answered:
            raise grpc.aio.UsageError("initial metadata goes before the first message")
        self._initial = tuple(initial_metadata)
        self._begin()
        self._carrier.flush_soon()

    async def abort(
        self, code: grpc.StatusCode, details: str = "", trailing_metadata: Metadata = ()
    ) -> NoReturn:
        """Ends the call with an error; what is no status of an error becomes UNKNOWN.

        Raises:
            grpc.aio.AbortError: always.
        """
        trailing = tuple(trailing_metadata) or self._trailing
        self._end(_number(code) or _UNKNOWN, details or self._details, trailing)
        raise grpc.aio.AbortError(f"aborted with {code}")

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
        self._code = _number(code)

    def set_details(self, details: str) -> None:
        """The text that goes with it."""
        self._details = details

    def set_compression(self, compression: grpc.Compression) -> None:
        """Replies are not compressed, which every client takes."""

    def disable_next_message_compression(self) -> None:
        """Replies are not compressed."""

    def peer(self) -> str:
        """Address of the client, such as `ipv4:10.0.0.5:40210`."""
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
        except grpc.aio.AbortError as error:
            if not (self._ended or self._stream.closed):
                # It was raised by hand, or for another call.
                log.exception("grpc.handler_failed", method=self._stream.fields.path)
                self._fail(error)
        except asyncio.CancelledError:
            self._end_anyway(_CANCELLED, "the call was cancelled")
            raise
        except Exception as error:
            log.exception("grpc.handler_failed", method=self._stream.fields.path)
            self._fail(error)
        finally:
            self._forget()

    def _fail(self, error: Exception) -> None:
        """Answers for a handler that failed, with the status that it has set if it has."""
        details = f"the server failed on this call: {type(error).__name__}; its log has more"
        self._end_anyway(self._code or _UNKNOWN, str(self._details) or details)

    def _end_anyway(self, code: int, details: str) -> None:
        """Ends it also if what its handler has set as metadata is none."""
        try:
            self._end(code, details, self._trailing)
        except (AttributeError, TypeError, ValueError):
            self._end(code, details, ())

    def _expire(self) -> None:
        self.break_off(grpc.StatusCode.DEADLINE_EXCEEDED, "the call's deadline has passed")

    def _check_open(self) -> None:
        if self._ended or self._stream.closed:
            # Its handler was cancelled or has aborted it, and went on.
            raise asyncio.CancelledError("nobody waits for this call any more")

    def _forget(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._carrier.forget(self._stream)

    def _begin(self) -> None:
        if not self._stream.answered:
            block = replies.metadata_fields(self._initial)
            self._carrier.streams.sending.begin(self._stream, block)

    def _end(self, code: int, details: str, trailing: Metadata) -> None:
        if self._ended or self._stream.closed:
            return
        block = replies.trailers(code, details, trailing)
        self._ended = True
        self._carrier.streams.sending.end(self._stream, block)
        self._carrier.flush_soon()

    def _serialized(self, message: Any) -> bytes:
        if self._method.serialize is not None:
            message = self._method.serialize(message)
        if not isinstance(message, bytes):
            raise TypeError(f"a handler answered with {type(message).__name__} instead of bytes")
        return message

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


def _number(code: Any) -> int:
    """The number of a status; UNKNOWN for what is none."""
    if isinstance(code, grpc.StatusCode):
        number: int = code.value[0]
        return number
    return code if isinstance(code, int) and 0 <= code <= _MAX_CODE else _UNKNOWN
