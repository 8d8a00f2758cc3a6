"""Who leads: the lease as a state machine, with clocks that disagree and answers that get lost."""

import random
from dataclasses import dataclass, field

import pytest

from services.autoscaler import lease
from services.autoscaler.lease import Entry, Leading, Renew, Standby, StepDown, Take, Wait

NEVER = Entry("", "", 0, 0, 0)
OTHER = Entry("b", "b:1", 4, 7, 20)
OWN = Entry("a", "a:1", 4, 7, 20)


def look(state: lease.State, now_s: float, entry: Entry, connected: bool = True):
    return lease.look(state, now_s, entry, "a", connected)


def test_the_first_leader_ever_has_the_first_term() -> None:
    _, action = look(Standby(), 100.0, NEVER)
    assert isinstance(action, Take)
    assert (action.epoch, action.revision) == (1, 0)
    assert lease.leads(lease.taken(action, 100.0), 105.9)


def test_terms_go_on_from_those_of_autoscalers_that_knew_no_lease() -> None:
    _, action = look(Standby(), 100.0, Entry("", "", 6, 0, 0))
    assert isinstance(action, Take)
    assert action.epoch == 7


def test_a_standby_takes_what_has_not_changed_for_8_s_of_its_own_clock() -> None:
    state, action = look(Standby(), 1000.0, OTHER)
    assert action == Wait(lease.TAKE_AFTER_S)
    state, action = look(state, 1007.5, OTHER)
    assert action == Wait(0.5)
    _, action = look(state, 1008.0, OTHER)
    assert isinstance(action, Take)
    assert (action.epoch, action.revision) == (5, 20)
    assert "b at b:1 has not renewed" in action.reason


def test_a_renewal_seen_begins_the_8_s_anew() -> None:
    state, _ = look(Standby(), 0.0, OTHER)
    state, _ = look(state, 7.0, Entry("b", "b:1", 4, 8, 21))
    _, action = look(state, 14.0, Entry("b", "b:1", 4, 8, 21))
    assert action == Wait(1.0)


def test_a_released_lease_is_taken_at_once() -> None:
    state, _ = look(Standby(), 0.0, OTHER)
    _, action = look(state, 0.1, Entry("", "", 4, 8, 21))
    assert isinstance(action, Take)
    assert (action.epoch, action.revision) == (5, 21)


def test_a_leader_renews_every_2_s() -> None:
    state = Leading(4, 100.0)
    assert look(state, 100.5, OWN)[1] == Wait(1.5)
    _, action = look(state, 102.0, OWN)
    assert action == Renew(4, 8, 20, lease.ATTEMPT_TIMEOUT_S)
    assert lease.renewed(state, 102.0) == Leading(4, 102.0)


def test_no_attempt_to_renew_outlasts_the_lease() -> None:
    _, action = look(Leading(4, 100.0), 105.5, OWN)
    assert isinstance(action, Renew)
    assert action.timeout_s == pytest.approx(0.5)


def test_a_leader_steps_down_6_s_after_its_last_renewal_began() -> None:
    leading = Leading(4, 100.0)
    assert lease.leads(leading, 105.99)
    assert not lease.leads(leading, 106.0)
    assert look(leading, 105.5, OWN, connected=False)[1] == Wait(0.5)
    state, action = look(leading, 106.0, OWN, connected=False)
    assert isinstance(action, StepDown)
    assert isinstance(state, Standby)
    assert not lease.leads(state, 106.0)


def test_a_leader_steps_down_when_another_one_holds_the_lease() -> None:
    state, action = look(Leading(3, 100.0), 100.1, OTHER)
    assert action == StepDown(3, "the lease is held by b at b:1 in term 4")
    assert look(state, 100.2, OTHER)[1] == Wait(pytest.approx(lease.TAKE_AFTER_S - 0.1))


def test_one_that_lost_nats_for_long_resumes_at_once_if_nobody_took_the_lease() -> None:
    state, _ = look(Leading(4, 100.0), 106.0, OWN, connected=False)
    state, action = look(state, 500.0, OWN, connected=False)
    assert isinstance(action, Wait)
    _, action = look(state, 501.0, OWN)
    assert isinstance(action, Take)
    assert (action.epoch, action.revision) == (5, 20)


def test_one_that_lost_nats_for_long_stands_by_if_another_took_the_lease() -> None:
    state, _ = look(Leading(4, 100.0), 106.0, OWN, connected=False)
    state, action = look(state, 501.0, Entry("b", "b:1", 5, 0, 30))
    assert action == Wait(lease.TAKE_AFTER_S)


def test_a_standby_does_not_count_the_time_in_which_it_can_see_nothing() -> None:
    state, _ = look(Standby(), 0.0, OTHER)
    state, action = look(state, 60.0, OTHER, connected=False)
    assert isinstance(action, Wait)
    assert look(state, 61.0, OTHER)[1] == Wait(7.0)


def test_of_two_standbys_one_takes_the_lease_and_the_other_waits_again() -> None:
    store = Store(OTHER)
    first, second = Member("a"), Member("c")
    for now_s in (0.0, 8.0):
        first.saw = second.saw = store.entry if now_s == 0.0 else OTHER
        for member in (first, second):
            member.step(store, now_s)
    assert store.entry.holder == "a"
    assert lease.leads(first.state, 8.0)
    assert second.beaten == 1
    second.saw = store.entry
    second.step(store, 9.0)
    assert store.epochs == [5]


def test_a_standby_that_was_beaten_gives_the_winner_its_full_time() -> None:
    state, _ = look(Standby(), 0.0, OTHER)
    state = lease.refused(state, 8.0)
    assert look(state, 9.0, OTHER)[1] == Wait(7.0)


def test_a_lost_store_does_not_lower_the_term() -> None:
    state, action = look(Leading(9, 100.0), 100.1, NEVER)
    assert action == StepDown(9, "the lease is held by nobody")
    _, action = look(state, 100.2, NEVER)
    assert isinstance(action, Take)
    assert (action.epoch, action.revision) == (10, 0)


@dataclass
class Store:
    """The key in NATS: compare-and-set, and every term that anyone ever took."""

    entry: Entry = NEVER
    epochs: list[int] = field(default_factory=list)
    late: list[tuple[float, Entry, int]] = field(default_factory=list)

    def put(self, entry: Entry, revision: int) -> bool:
        if revision != self.entry.revision:
            return False
        if entry.epoch != self.entry.epoch:
            self.epochs.append(entry.epoch)
        self.entry = Entry(entry.holder, entry.address, entry.epoch, entry.renewal, revision + 1)
        return True

    def put_what_is_late(self, now_s: float) -> None:
        for item in [item for item in self.late if item[0] <= now_s]:
            self.late.remove(item)
            self.put(item[1], item[2])


@dataclass
class Member:
    """An autoscaler with a clock of its own and what it saw last of the lease."""

    name: str
    offset_s: float = 0.0
    speed: float = 1.0
    state: lease.State = field(default_factory=Standby)
    saw: Entry = NEVER
    connected: bool = True
    paused_until_s: float = 0.0
    beaten: int = 0
    led: int = 0

    def clock_s(self, now_s: float) -> float:
        return self.offset_s + self.speed * now_s

    def leads(self, now_s: float) -> bool:
        return now_s >= self.paused_until_s and lease.leads(self.state, self.clock_s(now_s))

    def step(self, store: Store, now_s: float, fate: str = "written") -> None:
        started_s = self.clock_s(now_s)
        self.state, action = lease.look(self.state, started_s, self.saw, self.name, self.connected)
        if not isinstance(action, Renew | Take):
            return
        renewal = action.renewal if isinstance(action, Renew) else 0
        made = Entry(self.name, f"{self.name}:1", action.epoch, renewal, 0)
        if fate == "late":
            store.late.append((now_s + 5.0, made, action.revision))
        if fate in ("late", "lost"):
            return
        written = store.put(made, action.revision)
        if fate == "answer lost":
            return
        if not written:
            self.beaten += 1
            self.state = lease.refused(self.state, started_s)
            self.saw = store.entry
            return
        self.saw = store.entry
        if isinstance(action, Take):
            self.led += 1
            self.state = lease.taken(action, started_s)
        else:
            self.state = lease.renewed(self.state, started_s)


FATES = ("written", "answer lost", "lost", "late")


@pytest.mark.parametrize("seed", range(40))
def test_never_two_lead_at_once_and_terms_only_rise_whatever_fails(seed: int) -> None:
    """Pauses, lost connections, lost answers, late writes and clocks that run 10 % apart."""
    chance = random.Random(seed)
    store = Store()
    members = [
        Member(name, chance.uniform(-1e6, 1e6), chance.uniform(0.95, 1.05)) for name in "abc"
    ]
    last_led_s = 0.0
    for tick in range(3000):
        now_s = tick * 0.1
        calm = now_s > 250.0
        store.put_what_is_late(now_s)
        for member in members:
            if not calm and chance.random() < 0.003:
                member.paused_until_s = now_s + chance.uniform(1.0, 15.0)
            if chance.random() < 0.005 or calm:
                member.connected = calm or not member.connected
            if now_s < member.paused_until_s:
                continue
            if member.connected and chance.random() < 0.8:
                member.saw = store.entry
            rough = not calm and chance.random() < 0.3
            member.step(store, now_s, chance.choice(FATES) if rough else "written")
        leading = [member.name for member in members if member.leads(now_s)]
        assert len(leading) <= 1
        last_led_s = now_s if leading else last_led_s
    assert store.epochs == sorted(set(store.epochs))
    assert store.epochs
    assert last_led_s == pytest.approx(299.9)
