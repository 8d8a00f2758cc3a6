"""Whether a model in the object store is what its name says, as far as JetStream tells.

Nothing is read. Who reads a damaged object waits for messages that do not come.
"""

import base64

from nats.js import JetStreamContext
from nats.js.api import ObjectInfo

from services.wire import streams


async def is_intact(js: JetStreamContext, digest: str, info: ObjectInfo) -> bool:
    """Whether a stored object is the model with a digest, and all of it is there.

    Args:
        js: of the connection to NATS.
        digest: of the model.
        info: of the object stored under its name.

    Raises:
        nats.errors.Error: if NATS cannot be reached.
    """
    # Both digests are the SHA-256 of the content; the object's is in URL-safe base64.
    sha256 = base64.urlsafe_b64encode(bytes.fromhex(digest.partition(":")[2])).decode()
    if info.digest != f"SHA-256={sha256}":
        return False
    # JetStream drops messages that it finds damaged.
    chunks = f"$O.{streams.MODELS_BUCKET}.C.{info.nuid}"
    stream = await js.stream_info(f"OBJ_{streams.MODELS_BUCKET}", subjects_filter=chunks)
    counts: dict[str, int] = stream.state.subjects or {}
    return bool(counts.get(chunks, 0) == info.chunks)
