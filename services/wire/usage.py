"""Where usage is kept: subjects and the stream, which has one message of each subject.

An hour is two tokens, the day and the hour, so that a day can be read with one question.
"""

from nats.js import JetStreamContext
from nats.js.api import DiscardPolicy, StreamConfig

from services.wire.streams import ensure_stream
from services.wire.tasks.subjects import NO_BATCH

USAGE = "FOREBAY_USAGE"
SUBJECTS = "forebay.usage.>"

OPEN = "forebay.usage.open.*"
"""What is held now, and until when it is accounted, by deployment."""

POSITION = "forebay.usage.position"
"""Up to which note all are summed."""

HOUR_AGE_S = 400 * 24 * 3600
BATCH_AGE_S = 30 * 24 * 3600
"""How long an hour is kept after it was last written."""

_CONFIG = StreamConfig(
    name=USAGE,
    subjects=[SUBJECTS],
    # What is held now is written again all the time: it is never the oldest.
    discard=DiscardPolicy.OLD,
    max_msgs_per_subject=1,
    max_bytes=1 << 30,
    allow_msg_ttl=True,
    allow_direct=True,
)


async def ensure(js: JetStreamContext) -> None:
    """Makes sure of the stream. A size that an operator has changed stays as it is."""
    await ensure_stream(js, _CONFIG, keep_size=True)


def held(deployment: str) -> str:
    """Where is kept what a deployment holds now."""
    return f"forebay.usage.open.{deployment}"


def hour(day: str, hour_of_day: str = "*", deployment: str = "*") -> str:
    """Where an hour of a deployment is kept.

    Args:
        day: in UTC, as `20260301`.
        hour_of_day: in UTC, as `07`; all by default.
        deployment: its id; all by default.
    """
    return f"forebay.usage.hour.{day}.{hour_of_day}.{deployment}"


def batch_hour(
    day: str, hour_of_day: str, deployment: str = "*", tenant: str = "*", batch: str = "*"
) -> str:
    """Where an hour of a tenant's batch is kept; `batch` is empty for work in none."""
    return f"forebay.usage.batch.{day}.{hour_of_day}.{deployment}.{tenant}.{batch or NO_BATCH}"
