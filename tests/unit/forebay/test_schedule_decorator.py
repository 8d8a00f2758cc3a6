"""`@forebay.schedule`: what it marks, and what it refuses where it stands."""

import pytest

import forebay
from forebay.schedules import ScheduleSpec


def nothing() -> None:
    """Does nothing."""


def test_it_marks_what_it_stands_above_and_gives_it_back() -> None:
    mark = forebay.schedule(
        when="0 2 * * *", timezone="Europe/Berlin", missed="run-once", overlap="replace", argument=7
    )
    assert mark(nothing) is nothing
    assert nothing.schedule == ScheduleSpec(  # type: ignore[attr-defined]
        "0 2 * * *", "Europe/Berlin", "run-once", "replace", None, 7
    )


def test_it_marks_a_function_of_the_mesh() -> None:
    @forebay.schedule(when="0 2 * * *", name="nightly")
    @forebay.function
    def work() -> None:
        """Does nothing."""

    assert work.schedule == ScheduleSpec("0 2 * * *", name="nightly")
    assert work.options(priority="high").schedule == work.schedule


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"when": "0 0 30 2 *"}, "schedule: when: '0 0 30 2 *' never comes"),
        ({"when": "x"}, "schedule: when: 'x' has 1 field"),
        ({"timezone": "Mars"}, "schedule: timezone: time zone 'Mars' is not known"),
        ({"missed": "later"}, "schedule: missed = 'later'; legal are skip, run-once"),
        ({"overlap": "queue"}, "schedule: overlap = 'queue'; legal are skip, allow, replace"),
        ({"name": "Nightly!"}, "schedule: name = 'Nightly!'; legal are 1 to 63"),
    ],
)
def test_what_is_wrong_is_said_where_it_stands(wrong: dict[str, str], says: str) -> None:
    with pytest.raises(forebay.ScheduleError) as caught:
        forebay.schedule(**{"when": "0 2 * * *"} | wrong)
    assert str(caught.value).startswith(says)
