"""Cron expressions: what is legal, and when they come. Pure: time is an argument.

Slots are whole seconds since the epoch, so that clocks put forward or back neither repeat nor
reorder them. How daylight saving is met is cronsim's way, which is Debian cron's: where minute and
hour are given, what falls into the hour that is left out comes right after it, and what falls into
the hour that comes twice comes the first time; with `*` in either, slots go by the time that
passes.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from functools import lru_cache
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from services.wire.names import quoted

MAX_CHARACTERS = 200
MAX_TIMEZONE_CHARACTERS = 64

_FIELDS = (
    ("minute", "0 to 59"),
    ("hour", "0 to 23"),
    ("day of month", "1 to 31, L for the last, LW for the last weekday"),
    ("month", "1 to 12 or JAN to DEC"),
    ("day of week", "0 to 7 or SUN to SAT, where 0 and 7 are Sunday, 5L for the last Friday"),
)

_REPEATED = 2000
"""Slots that may be seen again while an hour comes twice: no zone has repeated more minutes."""


class CronError(ValueError):
    """An expression or a time zone that is not legal; the text says what is, without the field."""


@dataclass(frozen=True, slots=True)
class Cron:
    """An expression in a time zone. `parse` makes one.

    Attributes:
        when: five fields.
        zone: the time zone that they are read in.
    """

    when: str
    zone: tzinfo

    def next_after(self, instant_s: float) -> int | None:
        """The first slot after an instant, in seconds since the epoch; None if none ever comes.

        "Ever" is 50 years.
        """
        return next(_slots(self, instant_s), None)

    def latest(self, since_s: float, until_s: float) -> int | None:
        """The last slot after `since_s` and not after `until_s`; None if there is none.

        Takes some thirty steps at most, however many slots lie between.
        """
        found_s = self.next_after(since_s)
        if found_s is None or found_s > until_s:
            return None
        # Slots are at or after `found_s`, and none is after `high_s` up to `until_s`.
        high_s = math.floor(until_s)
        while found_s < high_s:
            middle_s = (found_s + high_s) // 2
            after_s = self.next_after(middle_s)
            if after_s is not None and after_s <= until_s:
                found_s = after_s
            else:
                high_s = middle_s
        return found_s

    def count(self, since_s: float, until_s: float, most: int) -> int:
        """How many slots are after `since_s` and not after `until_s`; counts up to `most`."""
        counted = 0
        for slot_s in _slots(self, since_s):
            if slot_s > until_s or counted >= most:
                break
            counted += 1
        return counted

    def local(self, instant_s: float) -> datetime:
        """An instant as the zone's clocks show it."""
        return datetime.fromtimestamp(instant_s, self.zone)


@lru_cache(maxsize=4096)
def parse(when: str, timezone: str = "") -> Cron:
    """An expression in a time zone.

    Args:
        when: five fields: minute, hour, day of month, month, day of week.
        timezone: IANA name; empty means UTC.

    Raises:
        CronError: if either is not legal, or it never comes.
    """
    cron = Cron(_checked(when), zone_of(timezone))
    # Fifty years hold every month, day and weekday there is.
    if cron.next_after(0.0) is None:
        raise _never(when)
    return cron


def zone_of(timezone: str) -> tzinfo:
    """The time zone of an IANA name; UTC if it is empty.

    Raises:
        CronError: if there is no such zone.
    """
    if timezone in ("", "UTC"):
        # cronsim knows this one, and is quicker with it.
        return UTC
    if len(timezone) <= MAX_TIMEZONE_CHARACTERS:
        try:
            return ZoneInfo(timezone)
        except (KeyError, ValueError, OSError):
            pass
    raise CronError(
        f"time zone {quoted(timezone)} is not known: write an IANA name such as Europe/Berlin, or "
        "leave it out for UTC"
    )


def _checked(when: str) -> str:
    if len(when) > MAX_CHARACTERS:
        raise CronError(
            f"{quoted(when)} is too long: at most {MAX_CHARACTERS} characters are legal"
        )
    fields = when.split()
    if len(fields) != len(_FIELDS):
        names = ", ".join(name for name, _ in _FIELDS)
        raise CronError(
            f"{quoted(when)} has {len(fields)} field{'' if len(fields) == 1 else 's'}: a cron "
            f"expression has {len(_FIELDS)}: {names}; 0 2 * * * is every day at 2:00"
        )
    # Each alone, so that what is wrong can be named.
    for position, (text, (name, legal)) in enumerate(zip(fields, _FIELDS, strict=True)):
        alone = ["*"] * len(fields)
        alone[position] = text
        if not _is_legal(" ".join(alone)):
            raise CronError(
                f"{quoted(when)}: its {name} is {quoted(text)}; legal are {legal}, *, lists such "
                "as 1,5, ranges such as 1-5 and steps such as */5"
            )
    joined = " ".join(fields)
    if not _is_legal(joined):
        raise _never(when)
    return joined


def _is_legal(when: str) -> bool:
    try:
        CronSim(when, datetime(2000, 1, 1, tzinfo=UTC))
    except CronSimError:
        return False
    return True


def _never(when: str) -> CronError:
    return CronError(
        f"{quoted(when)} never comes: no day has this day of month, month and day of week"
    )


def _slots(cron: Cron, since_s: float) -> Iterator[int]:
    """The slots after an instant, one after the other; whoever asks sees to an end."""
    last_s, repeated = since_s, 0
    sim = CronSim(cron.when, datetime.fromtimestamp(math.floor(since_s), cron.zone))
    for following in sim:
        slot_s = int(following.timestamp())
        if slot_s > last_s:
            yield slot_s
            last_s, repeated = slot_s, 0
            continue
        # Of an hour that comes twice cronsim forgets which of the two it began in.
        repeated += 1
        if repeated > _REPEATED:
            return
