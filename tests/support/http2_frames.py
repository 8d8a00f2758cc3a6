"""A client made of frames, for the server's half of HTTP/2 without a socket."""

from services.wire.http2 import frames as h2
from services.wire.http2.server.call_stream import CallStream
from services.wire.http2.server.call_streams import CallStreams, Event

MESSAGE_LIMIT = 1_000_000
METADATA_LIMIT = 16_384

REQUEST = (
    (b":method", b"POST"),
    (b":scheme", b"http"),
    (b":path", b"/a.B/C"),
    (b"te", b"trailers"),
    (b"content-type", b"application/grpc"),
)
BLOCK = h2.literal_fields(REQUEST)

Frame = tuple[int, int, int, bytes]


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """A frame."""
    return h2.frame_header(len(payload), kind, flags, stream) + payload


def headers(stream: int, block: bytes = BLOCK, flags: int = 0) -> bytes:
    """A header block that is one frame."""
    return frame(h2.HEADERS, h2.END_HEADERS | flags, stream, block)


def message(body: bytes) -> bytes:
    """A message as gRPC puts it on a stream."""
    return b"\0" + len(body).to_bytes(4, "big") + body


def data(stream: int, payload: bytes, end: bool = False) -> bytes:
    """A DATA frame."""
    return frame(h2.DATA, h2.END_STREAM if end else 0, stream, payload)


def call(stream: int, body: bytes = b"request") -> bytes:
    """A whole unary call."""
    return headers(stream) + data(stream, message(body), end=True)


class SilentClient:
    """A client that says what it is told to, without minding whether it may; nothing as yet.

    Attributes:
        server: the other end.
        events: name and stream of each event of the server.
        calls: the server's calls by stream, also those that have ended.
    """

    def __init__(self) -> None:
        """A connection on which nothing was said."""
        self.server = CallStreams(MESSAGE_LIMIT, METADATA_LIMIT)
        self.events: list[tuple[str, int]] = []
        self.calls: dict[int, CallStream] = {}

    def say(self, *parts: bytes) -> list[tuple[str, int]]:
        """Sends something at once; returns the events that it made."""
        made = []
        for event, stream in self.server.receive(b"".join(parts)):
            made.append((event.name, stream.id))
            if event is Event.BEGUN:
                self.calls[stream.id] = stream
        self.events += made
        return made

    def hear(self) -> list[Frame]:
        """Takes what the server has sent."""
        sent, self.server.sending.frames = b"".join(self.server.sending.frames), []
        return h2.FrameReader(2**24).feed(sent)

    def read(self, stream: int) -> bytes:
        """The next message of a call, as its handler takes it."""
        return self.server.read(self.calls[stream])[1]


class FrameClient(SilentClient):
    """One that has begun as a client does; both ends have taken each other's settings over."""

    def __init__(self, **settings: int) -> None:
        """A connection; settings are named as in `frames`."""
        super().__init__()
        values = {getattr(h2, name.upper()): value for name, value in settings.items()}
        self.say(h2.PREFACE + h2.settings(values) + h2.SETTINGS_ACK)
        self.hear()


def kinds(frames: list[Frame]) -> list[tuple[int, int]]:
    """Kind and stream of each."""
    return [(kind, stream) for kind, _, stream, _ in frames]


def numbers(frames: list[Frame], kind: int) -> list[tuple[int, int]]:
    """Stream and number of each WINDOW_UPDATE or RST_STREAM."""
    return [(s, int.from_bytes(p, "big")) for k, _, s, p in frames if k == kind]


def bodies(frames: list[Frame]) -> dict[int, bytes]:
    """What was sent of each stream's messages."""
    found: dict[int, bytes] = {}
    for kind, _, stream, payload in frames:
        if kind == h2.DATA:
            found[stream] = found.get(stream, b"") + payload
    return found
