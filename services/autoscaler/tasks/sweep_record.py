"""What is kept of sweeps: the last one, what all have repaired, and how far they have read."""

import json
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import nats.errors
import nats.js.errors
from nats.js import JetStreamContext

from services.wire import streams

BUCKET = "FOREBAY_TASK_SWEEPS"
KEY = "sweep"


@dataclass(slots=True)
class SweepRecord:
    """The record, one JSON object under one key of one bucket.

    Attributes:
        end_time_s: when the last sweep ended, in seconds since the epoch.
        took_s: how long it took.
        waiting_count: tasks it found in the queue.
        repairs: what all sweeps together have repaired, by kind.
        last_repairs: what the last one has repaired.
        advisory_sequence: advisories of the server were read up to here.
        dead_sequence: dead letters were checked up to here.
    """

    end_time_s: float = 0.0
    took_s: float = 0.0
    waiting_count: int = 0
    repairs: Counter[str] = field(default_factory=Counter)
    last_repairs: dict[str, int] = field(default_factory=dict)
    advisory_sequence: int = 0
    dead_sequence: int = 0

    def to_json(self) -> bytes:
        """The record as it is kept."""
        return json.dumps(
            {
                "end_time_s": round(self.end_time_s, 3),
                "took_s": round(self.took_s, 3),
                "waiting_count": self.waiting_count,
                "repairs": dict(sorted(self.repairs.items())),
                "last_repairs": dict(sorted(self.last_repairs.items())),
                "advisory_sequence": self.advisory_sequence,
                "dead_sequence": self.dead_sequence,
            }
        ).encode()

    @classmethod
    def from_json(cls, data: bytes) -> "SweepRecord":
        """The record that was kept; an empty one if it cannot be read, which reads all again."""
        try:
            kept: dict[str, Any] = json.loads(data)
            return cls(
                float(kept["end_time_s"]),
                float(kept["took_s"]),
                int(kept["waiting_count"]),
                Counter({str(kind): int(count) for kind, count in kept["repairs"].items()}),
                {str(kind): int(count) for kind, count in kept["last_repairs"].items()},
                int(kept["advisory_sequence"]),
                int(kept["dead_sequence"]),
            )
        except (ValueError, KeyError, TypeError, AttributeError):
            return cls()


async def load(js: JetStreamContext) -> SweepRecord:
    """The record; an empty one if there is none.

    Raises:
        nats.errors.Error: if NATS cannot be reached.
    """
    try:
        entry = await (await streams.bucket(js, BUCKET)).get(KEY)
    except nats.js.errors.KeyNotFoundError:
        return SweepRecord()
    return SweepRecord.from_json(entry.value or b"")


async def save(js: JetStreamContext, record: SweepRecord) -> None:
    """Keeps the record.

    Raises:
        nats.errors.Error: if NATS cannot be reached.
    """
    await (await streams.bucket(js, BUCKET)).put(KEY, record.to_json())
