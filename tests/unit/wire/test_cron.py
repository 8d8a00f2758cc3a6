"""Cron expressions: what is legal, and when they come, whatever the clocks do."""

import random
from datetime import UTC, datetime
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest

from services.wire.cron import Cron, CronError, parse, zone_of

BERLIN = "Europe/Berlin"


def at(text: str, timezone: str = "UTC", fold: int = 0) -> int:
    made = datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(timezone), fold=fold)
    return int(made.timestamp())


def utc(seconds: int | None) -> str:
    assert seconds is not None
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M")


def slots(cron: Cron, since_s: int, until_s: int) -> list[int]:
    found: list[int] = []
    while (slot_s := cron.next_after(found[-1] if found else since_s)) is not None:
        if slot_s > until_s:
            break
        found.append(slot_s)
    return found


@pytest.mark.parametrize(
    ("when", "says"),
    [
        ("", "has 0 fields"),
        ("@daily", "has 1 field:"),
        ("* * * * * *", "has 6 fields"),
        ("61 * * * *", "its minute is '61'; legal are 0 to 59"),
        ("* 24 * * *", "its hour is '24'; legal are 0 to 23"),
        ("* * 0 * *", "its day of month is '0'"),
        ("* * * 13 *", "its month is '13'; legal are 1 to 12 or JAN to DEC"),
        ("* * * * 8", "its day of week is '8'"),
        ("5-1 * * * *", "its minute is '5-1'"),
        ("*/0 * * * *", "its minute is '*/0'"),
        ("1,,2 * * * *", "its minute is '1,,2'"),
        ("-1 * * * *", "its minute is '-1'"),
        ("²L * * * *", "its minute is"),
        ("* * * * ²L", "its day of week is"),
        ("0 0 30 2 *", "never comes"),
        ("0 0 31 4,6,9,11 *", "never comes"),
        ("0 0 LW * */7", "never comes"),
        ("0," * 200 + "0 * * * *", "is too long"),
    ],
)
def test_what_is_not_legal_is_named(when: str, says: str) -> None:
    with pytest.raises(CronError) as caught:
        parse(when)
    assert says in str(caught.value)


@pytest.mark.parametrize("timezone", ["Mars/Base", "../../etc/passwd", "Europe", "x" * 99, "\0"])
def test_a_time_zone_that_is_not_known_is_named(timezone: str) -> None:
    with pytest.raises(CronError, match="write an IANA name such as Europe/Berlin"):
        zone_of(timezone)


def test_rare_days_come_all_the_same() -> None:
    assert utc(parse("0 0 29 2 *").next_after(at("2026-01-01"))) == "2028-02-29 00:00"
    # The year 2100 has no 29 February.
    assert utc(parse("0 0 29 2 *").next_after(at("2096-03-01"))) == "2104-02-29 00:00"
    assert utc(parse("0 0 29 2 */7").next_after(at("2026-01-01"))) == "2032-02-29 00:00"
    assert utc(parse("0 0 * 2 MON#5").next_after(at("2026-01-01"))) == "2044-02-29 00:00"
    assert utc(parse("0 12 L * *").next_after(at("2028-02-10"))) == "2028-02-29 12:00"
    assert utc(parse("0 0 31 2 1").next_after(at("2026-01-01"))) == "2026-02-02 00:00"


def test_a_slot_is_after_the_instant_and_not_at_it() -> None:
    cron = parse("0 2 * * *")
    assert utc(cron.next_after(at("2026-05-01 01:59"))) == "2026-05-01 02:00"
    assert utc(cron.next_after(at("2026-05-01 02:00"))) == "2026-05-02 02:00"
    assert utc(cron.next_after(at("2026-05-01 02:00") - 0.001)) == "2026-05-01 02:00"


def test_an_hour_that_is_left_out_comes_right_after_it() -> None:
    # 2026-03-29 in Berlin: 01:59 is followed by 03:00.
    cron = parse("30 2 * * *", BERLIN)
    day = slots(cron, at("2026-03-28 12:00"), at("2026-03-30 12:00"))
    assert [utc(slot_s) for slot_s in day] == ["2026-03-29 01:00", "2026-03-30 00:30"]


def test_several_slots_in_an_hour_that_is_left_out_are_one() -> None:
    cron = parse("0,20,40 2,3 * * *", BERLIN)
    day = slots(cron, at("2026-03-29 00:00"), at("2026-03-29 12:00"))
    assert [utc(slot_s) for slot_s in day] == [
        "2026-03-29 01:00",
        "2026-03-29 01:20",
        "2026-03-29 01:40",
    ]


def test_in_an_hour_that_comes_twice_a_slot_comes_the_first_time() -> None:
    # 2026-10-25 in Berlin: 02:59 summer time is followed by 02:00 winter time.
    cron = parse("30 2 * * *", BERLIN)
    day = slots(cron, at("2026-10-24 12:00"), at("2026-10-26 12:00"))
    assert [utc(slot_s) for slot_s in day] == ["2026-10-25 00:30", "2026-10-26 01:30"]
    # Also for whoever begins to look in the second of the two hours.
    assert utc(cron.next_after(at("2026-10-25 02:10", BERLIN, fold=1))) == "2026-10-26 01:30"
    assert utc(cron.next_after(at("2026-10-25 02:40", BERLIN, fold=0))) == "2026-10-26 01:30"


def test_what_comes_every_so_often_goes_by_the_time_that_passes() -> None:
    hourly = parse("0 * * * *", BERLIN)
    for day in ("2026-03-29", "2026-10-25"):
        found = slots(hourly, at(f"{day} 00:00") - 4 * 3600, at(f"{day} 00:00") + 8 * 3600)
        assert {later - earlier for earlier, later in pairwise(found)} == {3600}


@pytest.mark.parametrize(
    ("when", "timezone"),
    [
        ("30 2 * * *", BERLIN),
        ("0,20,40 2,3 * * *", BERLIN),
        ("*/7 * * * *", BERLIN),
        ("15 1-3 * * SUN", "America/New_York"),
        ("0 0 * * *", "America/Santiago"),
        ("* 0 * * *", "Africa/Cairo"),
        ("30 1 * * *", "Australia/Lord_Howe"),
        ("0 12 29 2 *", ""),
        ("0 9 * * 1-5", ""),
    ],
)
def test_the_latest_slot_is_the_last_of_those_that_come_one_by_one(
    when: str, timezone: str
) -> None:
    cron, dice = parse(when, timezone), random.Random(when)
    for _ in range(40):
        change = at(dice.choice(["2026-03-29", "2026-10-25", "2028-02-29", "2026-09-06"]))
        since_s = change + dice.randrange(-86_400 * 2, 86_400)
        until_s = since_s + dice.randrange(1, 86_400 * 3)
        one_by_one = slots(cron, since_s, until_s)
        assert sorted(set(one_by_one)) == one_by_one
        expected = one_by_one[-1] if one_by_one else None
        assert cron.latest(since_s, until_s + dice.random()) == expected
        assert cron.count(since_s, until_s, 10_000) == len(one_by_one)


def test_years_of_slots_are_looked_through_in_few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[float] = []
    next_after = Cron.next_after

    def counted(self: Cron, instant_s: float) -> int | None:
        asked.append(instant_s)
        return next_after(self, instant_s)

    monkeypatch.setattr(Cron, "next_after", counted)
    found = parse("* * * * *").latest(at("2000-01-01"), at("2026-05-01 12:34"))
    assert utc(found) == "2026-05-01 12:34"
    assert len(asked) < 40


def test_counting_ends_at_its_bound() -> None:
    assert parse("* * * * *").count(0, 1e9, 1000) == 1000
    assert parse("0 0 29 2 */7").count(at("2026-01-01"), at("2027-01-01"), 1000) == 0
