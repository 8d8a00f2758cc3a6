"""Pure: one call on a connection, as the server sees it."""

from collections import deque

from services.wire.http2.server.call_fields import CallFields
from services.wire.http2.server.messages import MessageReader

Part = bytes | memoryview


class CallStream:
    """One call.

    Attributes:
        id: of the HTTP/2 stream.
        fields: what its header block says.
        reader: the messages that came.
        window: how many bytes the client may still send.
        half_closed: the client sends nothing more.
        closed: nothing is sent or heard on it any more.
        answered: the header block before the first message was sent.
        credit: how many bytes the client takes more than its window for new streams: what it
            allowed this one, less what it was sent.
        unsent: of messages, in order.
        unsent_bytes: of all of them.
        ending: the trailers, once they are known and not yet sent.
        upload: whether it has a place for a large message; False if it waits for one, None if it
            needs none.
    """

    __slots__ = (
        "answered",
        "closed",
        "credit",
        "ending",
        "fields",
        "half_closed",
        "id",
        "reader",
        "unsent",
        "unsent_bytes",
        "upload",
        "window",
    )

    def __init__(self, stream_id: int, fields: CallFields, window: int) -> None:
        """A call whose header block has come."""
        self.id = stream_id
        self.fields = fields
        self.reader = MessageReader()
        self.window = window
        self.credit = 0
        self.half_closed = False
        self.closed = False
        self.answered = False
        self.unsent: deque[Part] = deque()
        self.unsent_bytes = 0
        self.ending: bytes | None = None
        self.upload: bool | None = None
