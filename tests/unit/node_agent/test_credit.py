"""Pulling by free slots."""

import random

from services.node_agent.credit import EXPIRES_S, GRACE_S, Credit


def test_asks_for_as_many_as_there_are_free_slots() -> None:
    credit = Credit(slots=8)
    assert credit.wanted(ongoing=0) == 8
    credit.open(8, now_s=0)
    assert credit.wanted(ongoing=0) == 0


def test_waits_until_a_quarter_is_free_unless_nothing_is_on_its_way() -> None:
    credit = Credit(slots=8)
    credit.open(8, now_s=0)
    credit.delivered()
    assert credit.wanted(ongoing=0) == 0
    credit.delivered()
    assert credit.wanted(ongoing=0) == 2
    for _ in range(6):
        credit.delivered()
    assert credit.wanted(ongoing=7) == 1


def test_one_slot_asks_for_one_at_a_time() -> None:
    credit = Credit(slots=1)
    credit.open(1, now_s=0)
    credit.delivered()
    assert credit.wanted(ongoing=1) == 0
    assert credit.wanted(ongoing=0) == 1


def test_what_the_server_did_not_deliver_is_asked_for_again() -> None:
    credit = Credit(slots=4)
    name = credit.open(4, now_s=0)
    credit.delivered()
    credit.closed(name, undelivered=3)
    assert credit.on_the_way == 0


def test_a_pull_that_a_restart_swallowed_expires() -> None:
    credit = Credit(slots=4)
    credit.open(4, now_s=0)
    credit.expire(now_s=EXPIRES_S)
    assert credit.on_the_way == 4
    credit.expire(now_s=EXPIRES_S + GRACE_S)
    assert credit.on_the_way == 0


def test_knows_what_is_on_its_way_however_the_server_deals_it_out() -> None:
    """A server that deals its messages out over several open pulls, in any order."""
    draw = random.Random(3)
    credit = Credit(slots=16)
    pulls: dict[str, int] = {}
    for step in range(20_000):
        wanted = credit.wanted(ongoing=0)
        if wanted:
            pulls[credit.open(wanted, now_s=step)] = wanted
        name = draw.choice(sorted(pulls)) if pulls else None
        if name is None:
            continue
        if draw.random() < 0.9:
            pulls[name] -= 1
            credit.delivered()
            if not pulls[name]:
                del pulls[name]
        else:
            credit.closed(name, undelivered=pulls.pop(name))
        assert credit.on_the_way == sum(pulls.values()) <= 16
