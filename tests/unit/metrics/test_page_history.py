"""The history behind the built-in page: bounded, and honest about what was not known."""

import math

from services.metrics.page.history import MAX_COLUMNS, History


def test_keeps_only_the_last_instants() -> None:
    history = History(1, length=5)
    for i in range(12):
        history.begin(100.0 + 2 * i)
        history.put("add", {"queued": i})
    series = history.series("add")
    assert series.ticks == (7, 12)
    assert series.times_s == [114, 116, 118, 120, 122]
    assert series.values == {"queued": [7, 8, 9, 10, 11]}


def test_what_is_not_known_is_a_gap() -> None:
    history = History(1, length=5)
    for value in (1, None, 0):
        history.begin(0.0)
        history.put("add", {"queued": value, "ready": 1})
    assert history.series("add").values == {"queued": [1, None, 0], "ready": [1, 1, 1]}


def test_what_was_not_looked_at_is_a_gap_even_where_the_ring_was_written_before() -> None:
    history = History(1, length=3)
    for looked in (True, True, True, False, False, True):
        history.begin(0.0)
        if looked:
            history.put("add", {"queued": 9})
    assert history.series("add").values == {"queued": [None, None, 9]}


def test_what_is_gone_does_not_go_on() -> None:
    history = History(1, length=3)
    for i in range(5):
        history.begin(0.0)
        if i < 3:
            history.put("add", {"queued": 9})
    assert history.series("add").values == {"queued": [9, None, None]}


def test_gives_what_is_new_since_an_instant() -> None:
    history = History(1, length=5)
    for i in range(4):
        history.begin(float(i))
        history.put("add", {"queued": i})
    assert history.series("add", since_tick=1).values == {"queued": [2, 3]}
    nothing = history.series("add", since_tick=3)
    assert (nothing.ticks, nothing.values) == ((4, 4), {"queued": []})
    # A reader of another process' ticks finds that they are not there.
    assert history.series("add", since_tick=99).ticks == (100, 100)


def test_makes_room_by_forgetting_what_was_not_in_use_for_longest() -> None:
    history = History(2, length=9)
    history.begin(0.0)
    assert history.put("idle", {"queued": 0}, in_use=False)
    assert history.put("old", {"queued": 1})
    history.begin(1.0)
    assert not history.put("other", {"queued": 0}, in_use=False)
    assert history.put("new", {"queued": 1})
    assert ("idle" in history, "old" in history) == (False, True)
    history.begin(2.0)
    assert history.put("newer", {"queued": 1})
    assert ("old" in history, "new" in history) == (False, True)


def test_what_is_in_use_does_not_make_room_whatever_the_order() -> None:
    history = History(1, length=9)
    for _ in range(4):
        history.begin(0.0)
        # The first instant decides; afterwards the other is asked first, and in vain.
        if "z" in history:
            assert not history.put("a", {"queued": 1})
            assert not history.has_room
        assert history.put("z", {"queued": 1})
    assert history.series("z").values == {"queued": [1, 1, 1, 1]}


def test_a_group_has_a_bounded_number_of_columns() -> None:
    history = History(1, length=3)
    history.begin(0.0)
    history.put("add", {f"column_{i}": i for i in range(100)})
    assert len(history.series("add").values) == MAX_COLUMNS


def test_forgets_all_but_those_that_are_there() -> None:
    history = History(3, length=3)
    history.begin(0.0)
    for name in ("a", "b"):
        history.put(name, {"queued": 1})
    history.keep({"b", "c"})
    assert ("a" in history, "b" in history) == (False, True)
    assert history.series("a").values == {}


def test_absurd_numbers_are_not_given_to_readers() -> None:
    history = History(1, length=3)
    history.begin(0.0)
    history.put("add", {"queued": math.inf, "ongoing": math.nan, "ready": 0.1})
    assert history.series("add").values == {"queued": [None], "ongoing": [None], "ready": [0.1]}
