"""The lane that requests and replies take through nats-py: no task, queue or header per message.

nats-py hands each message to a task through a queue, parses its headers and copies each publish
through four coroutines. At a thousand requests a second that was a third of the router's CPU. This
client lets chosen subscriptions have a plain function called from the read loop, and puts whole
protocol lines (docs.nats.io, client protocol: HPUB and PUB) into nats-py's own outgoing buffer.
Everything else, and the connection itself, stays nats-py's. It relies on names inside nats-py, so
the version is pinned and a test runs every path against a real server.
"""

import asyncio
from collections.abc import Callable

import nats.errors
import structlog
from nats.aio.client import Client
from nats.aio.subscription import Subscription

DirectHandler = Callable[[bytes, bytes, bytes, bytes | None], None]
"""Called with subject, reply subject, payload and raw headers, in the order of arrival. Must not
block; if it raises, that is logged and the message is dropped."""

log = structlog.get_logger()

_HEADER_LINE = b"NATS/1.0\r\n"


async def _unused(_: object) -> None:
    """Stands where nats-py wants a callback; direct subscriptions never reach it."""


class DataLaneClient(Client):  # type: ignore[misc]
    """nats-py's client with a short way in and out."""

    def __init__(self) -> None:
        """An unconnected client."""
        super().__init__()
        self._direct: dict[int, DirectHandler] = {}

    @property
    def backlog_bytes(self) -> int:
        """What was published and has not left this process: the server takes it no faster."""
        size: int = self._pending_data_size
        writer = getattr(self._transport, "_io_writer", None)
        if writer is not None:
            size += writer.transport.get_write_buffer_size()
        return size

    async def subscribe_direct(self, subject: str, handler: DirectHandler) -> Subscription:
        """Subscribes a plain function to a subject. Unsubscribe with `unsubscribe_direct`."""
        subscription = await self.subscribe(subject, cb=_unused)
        self._direct[subscription._id] = handler
        return subscription

    async def unsubscribe_direct(self, subscription: Subscription) -> None:
        """Ends a direct subscription."""
        self._direct.pop(subscription._id, None)
        await subscription.unsubscribe()

    def send(self, subject: str, payload: bytes, reply: str = "", headers: bytes = b"") -> None:
        """Publishes without waiting: the bytes go out in this turn of the event loop.

        Args:
            subject: checked by the caller; must hold no white space.
            payload: at most the server's max_payload less the headers.
            reply: reply subject.
            headers: `Name: value\\r\\n` for each, without the leading version line.

        Raises:
            nats.errors.OutboundBufferLimitError: while disconnected.
            nats.errors.MaxPayloadError: if it is too large; the server would close the connection.
        """
        if not self.is_connected:
            raise nats.errors.OutboundBufferLimitError
        size = len(payload)
        if headers:
            block = b"%b%b\r\n" % (_HEADER_LINE, headers)
            total = size + len(block)
            line = f"HPUB {subject} {reply} {len(block)} {total}\r\n".encode() + block
        else:
            total = size
            line = f"PUB {subject} {reply} {size}\r\n".encode()
        if total > self._max_payload:
            raise nats.errors.MaxPayloadError
        command = b"".join((line, payload, b"\r\n"))
        self._pending.append(command)
        self._pending_data_size += len(command)
        if self._flush_queue is not None and self._flush_queue.empty():
            self._flush_queue.put_nowait(asyncio.get_running_loop().create_future())

    async def _process_msg(
        self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes | None
    ) -> None:
        handler = self._direct.get(sid)
        if handler is None:
            await super()._process_msg(sid, subject, reply, data, headers)
            return
        try:
            handler(subject, reply, data, headers)
        except Exception:
            # nats-py's read loop would end, and with it everything this process hears.
            log.exception("data_lane.handler_failed", subject=subject.decode(errors="replace"))
