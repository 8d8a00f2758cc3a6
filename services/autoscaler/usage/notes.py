"""Notes of what replicas did for whom, summed by hour, tenant and batch. Pure.

Each sum says up to which note it holds. Notes are taken in their order; one that a sum holds
already is left out of it, so that notes may be read again after a crash and each counts once.
"""

import json
from dataclasses import dataclass, replace
from typing import NamedTuple

from forebay.v1.task_record_pb2 import UsageNote
from services.wire import names

MAX_BATCHES = 1000
"""Tenants' batches of one deployment in one hour; the rest is summed under OTHER."""

OTHER = "_other"
"""Tenant and batch of what is beyond; no tenant and no batch may be called so."""

MAX_NOTE_S = 1e9
"""Far above what all replicas of a node can hold; attempts of a day may all end at once."""
MAX_GPUS = 1024


class Who(NamedTuple):
    """For whom was worked."""

    tenant: str
    batch: str


@dataclass(frozen=True, slots=True)
class BatchSum:
    """What was done for one tenant's batch in one hour.

    Attributes:
        attempt_count: attempts that ended.
        replica_s: seconds of replicas: time of the attempts by the share of the slots they held.
        gpu_s: the same times the GPUs.
        applied: sequence of the last note that it holds, or that was read before it was written.
        stream: which stream of notes that was; another one begins again at 1.
    """

    attempt_count: int = 0
    replica_s: float = 0.0
    gpu_s: float = 0.0
    applied: int = 0
    stream: int = 0

    def write(self) -> bytes:
        """As it is kept."""
        return json.dumps(
            {
                "replica_s": round(self.replica_s, 6),
                "gpu_s": round(self.gpu_s, 6),
                "attempt_count": self.attempt_count,
                "applied": self.applied,
                "stream": self.stream,
            },
            separators=(",", ":"),
        ).encode()

    @classmethod
    def read(cls, kept: bytes) -> "BatchSum":
        """What was kept.

        Raises:
            ValueError: if it is not what `write` makes.
        """
        try:
            said = json.loads(kept)
            return cls(
                int(said["attempt_count"]),
                float(said["replica_s"]),
                float(said["gpu_s"]),
                int(said["applied"]),
                int(said["stream"]),
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"no sum: {error}") from error


def checked(note: UsageNote) -> UsageNote | None:
    """A note as it can be summed; None if no agent in order could have sent it."""
    named = (
        names.is_id(note.deployment)
        # A tenant may end with a hyphen.
        and len(note.tenant) <= 63
        and names.is_id(note.tenant.rstrip("-"))
        and (not note.batch or names.is_id(note.batch))
    )
    times_s = [time.ToNanoseconds() / 1e9 for time in (note.replica_time, note.gpu_time)]
    legal = (
        0 <= times_s[0] <= MAX_NOTE_S
        and 0 <= times_s[1] <= MAX_NOTE_S * MAX_GPUS
        and note.attempt_count >= 0
    )
    return note if named and legal else None


class HourTable:
    """The sums of one deployment in one hour.

    Attributes:
        changed: whose sums are to be written.
    """

    def __init__(self, sums: dict[Who, BatchSum]) -> None:
        """Goes on from what was kept."""
        self._sums = dict(sums)
        self.changed: set[Who] = set()

    def __getitem__(self, who: Who) -> BatchSum:
        return self._sums[who]

    def add(self, note: UsageNote, sequence: int, stream: int) -> None:
        """Adds a note, unless its sum holds it already.

        Args:
            note: checked.
            sequence: of the note.
            stream: which stream it is from.
        """
        who = Who(note.tenant, note.batch)
        if who not in self._sums and len(self._sums) >= MAX_BATCHES:
            who = Who(OTHER, OTHER)
        before = self._sums.get(who, BatchSum())
        if before.stream == stream and sequence <= before.applied:
            return
        self._sums[who] = BatchSum(
            before.attempt_count + note.attempt_count,
            before.replica_s + note.replica_time.ToNanoseconds() / 1e9,
            before.gpu_s + note.gpu_time.ToNanoseconds() / 1e9,
            sequence,
            stream,
        )
        self.changed.add(who)

    def read_until(self, sequence: int) -> None:
        """Takes note that everything up to a sequence was added; to be called before writing."""
        for who in self.changed:
            self._sums[who] = replace(self._sums[who], applied=sequence)
