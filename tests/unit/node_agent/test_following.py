"""Whose word an agent takes, over its restarts, and how long it waits between autoscalers."""

from pathlib import Path

import pytest

from services.node_agent.accepted_word import FILE, AcceptedWord
from services.node_agent.assignments import pause_s
from services.node_agent.reconcile import AssignedSet, accepts


def test_what_was_accepted_is_known_after_a_restart(tmp_path: Path) -> None:
    assert AcceptedWord(tmp_path).read() is None
    AcceptedWord(tmp_path).keep(AssignedSet((), revision=7, epoch=3))
    known = AcceptedWord(tmp_path).read()
    assert known == AssignedSet((), revision=7, epoch=3)
    assert not accepts(known, AssignedSet((), revision=99, epoch=2))
    assert not accepts(known, AssignedSet((), revision=6, epoch=3))
    assert accepts(known, AssignedSet((), revision=7, epoch=3))
    assert accepts(known, AssignedSet((), revision=1, epoch=4))


@pytest.mark.parametrize("text", ["", "{", "[]", '{"epoch": "x", "revision": 1}', '{"epoch": 1}'])
def test_a_damaged_file_does_not_keep_an_agent_from_starting(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE).write_text(text)
    assert AcceptedWord(tmp_path).read() is None


def test_an_autoscaler_is_followed_although_nothing_can_be_noted(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    AcceptedWord(tmp_path / "file").keep(AssignedSet((), 1, 1))


@pytest.mark.parametrize("addresses", [1, 2, 3])
def test_each_autoscaler_is_dialled_within_a_second_and_none_in_a_tight_loop(
    addresses: int,
) -> None:
    for luck in (0.0, 1.0):
        pauses = [pause_s(vain, addresses, luck) for vain in range(1, 60)]
        assert all(0.02 <= pause <= 1 for pause in pauses)
        assert all(
            sum(pauses[start : start + addresses]) < 1 for start in range(len(pauses) - addresses)
        )
    assert sum(pause_s(vain, addresses, 0.5) for vain in range(1, 101)) / 100 > 0.04
