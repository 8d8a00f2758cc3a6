"""What is learned of start-up times, and what is forgotten."""

import pytest

from services.autoscaler import startups
from services.autoscaler.startups import Startups


def test_a_node_that_is_gone_is_forgotten() -> None:
    known = Startups()
    known.learn("a", "n1", 10.0)
    known.learn("a", "n2", 20.0)
    known.forget({}, {"a": None}, {"n2"})
    assert known.startup_s("a", "n1") == known.startup_s("a", "n2") == 20.0


def test_the_mean_stays_when_the_last_node_goes_until_a_start_is_seen_again() -> None:
    known = Startups()
    known.learn("a", "n1", 10.0)
    known.learn("a", "n2", 20.0)
    known.forget({}, {"a": None}, {"n3"})
    assert known.startup_s("a") == known.startup_s("a", "n3") == 15.0
    known.learn("a", "n3", 40.0)
    assert known.startup_s("a") == 40.0


def test_nothing_stays_of_a_deployment_that_is_gone() -> None:
    known = Startups()
    known.learn("a", "n1", 10.0)
    known.learn("b", "n1", 10.0)
    known.forget({}, {"b": None}, {"n2"})
    known.forget({}, {}, {"n2"})
    assert known.startup_s("a") is None
    assert known.startup_s("b") is None


def test_no_node_is_forgotten_while_it_is_not_known_which_there_are() -> None:
    known = Startups()
    known.learn("a", "n1", 10.0)
    known.learn("a", "n2", 20.0)
    known.forget({}, {"a": None})
    assert known.startup_s("a", "n1") == 10.0


def test_nodes_that_go_make_room_for_new_deployments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(startups, "MAX_LEARNED", 2)
    known = Startups()
    known.learn("a", "n1", 10.0)
    known.learn("a", "n2", 10.0)
    known.learn("b", "n2", 30.0)
    assert known.startup_s("b") is None
    both = {"a": None, "b": None}
    known.forget({}, both, {"n2"})
    known.learn("b", "n2", 30.0)
    assert known.startup_s("b") == 30.0
