"""Whether a GPU may be used, from what its driver says of it."""

from dataclasses import replace

import pytest

from forebay.v1.node_pb2 import Gpu
from services.node_agent.gpus import xids
from services.node_agent.gpus.health import MAX_XIDS, CardHealth
from services.node_agent.gpus.reading import Card, Event, Figures, Needs

OK, FAULTY, LOST = Gpu.HEALTH_OK, Gpu.HEALTH_FAULTY, Gpu.HEALTH_LOST
NONE, RESET, REBOOT, DRAIN_P2P = 0, 1, 2, 3


def card(uncorrected: int = 0, watched: bool = True, **needs: object) -> Card:
    figures = Figures("GPU-0", "NVIDIA L4", ecc_uncorrected_count=uncorrected)
    return Card("GPU-0", (figures,), replace(Needs(), **needs), watched=watched)  # type: ignore[arg-type]


def after(*xid: int, ignored: frozenset[int] = frozenset()) -> CardHealth:
    health = CardHealth(ignored)
    health.take(card())
    for number in xid:
        health.note(Event("GPU-0", xid=number))
    return health


@pytest.mark.parametrize("xid", sorted(xids.FATAL))
def test_a_fatal_xid_takes_the_gpu_out_of_use_and_says_what_to_do(xid: int) -> None:
    verdict = after(xid).verdict()
    assert verdict.health == FAULTY
    assert not verdict.usable
    assert f"Xid {xid} " in verdict.message
    assert "reset the GPU" in verdict.message or "restart the machine" in verdict.message


@pytest.mark.parametrize("xid", [8, 13, 31, 32, 43, 45, 63, 68, 69, 92, 94, 121, 155, 157, 999])
def test_an_xid_of_a_program_is_counted_and_changes_nothing(xid: int) -> None:
    health = after(xid, xid)
    assert health.verdict().health == OK
    assert health.verdict().message == ""
    assert health.xid_counts() == {xid: 2}


def test_an_operator_may_ignore_a_fatal_xid() -> None:
    assert after(109, ignored=frozenset({109})).verdict().usable
    assert not after(79, ignored=frozenset({109})).verdict().usable


def test_a_fault_stays_while_nothing_tells_of_a_reset() -> None:
    health = after(79)
    for _ in range(100):
        health.take(card())
    assert health.verdict().health == FAULTY


def test_a_fault_is_over_once_the_driver_asks_for_no_recovery_any_more() -> None:
    health = after(95)
    health.take(card(action=NONE))
    assert health.verdict().health == FAULTY
    health.take(card(action=RESET))
    assert "the driver asks for a reset of the GPU" in health.verdict().message
    health.take(card(action=NONE))
    assert health.verdict().usable


def test_a_gpu_that_was_lost_and_is_back_has_been_reset() -> None:
    health = after(79)
    health.lose("gone")
    assert health.verdict().health == LOST
    assert health.verdict().message == "gone"
    health.take(replace(card(), lost=True))
    assert health.verdict().health == LOST
    health.take(card())
    assert health.verdict().usable
    assert health.xid_counts() == {79: 1}


@pytest.mark.parametrize("needs", [{"action": RESET}, {"action": REBOOT}, {"reset": True}])
def test_what_the_driver_asks_for_counts_without_any_xid_and_while_it_asks(
    needs: dict[str, object],
) -> None:
    health = after()
    health.take(card(**needs))
    assert health.verdict().health == FAULTY
    health.take(card())
    assert health.verdict().usable


def test_draining_its_links_takes_no_gpu_out_of_use() -> None:
    health = after()
    health.take(card(action=DRAIN_P2P))
    assert health.verdict().usable


def test_a_row_that_waits_to_be_remapped_is_told_and_one_that_cannot_be_is_fatal() -> None:
    health = after()
    health.take(card(remap_pending=True))
    assert health.verdict().usable
    assert "when the GPU is reset next" in health.verdict().message
    health.take(card(remap_failed=True))
    assert health.verdict().health == FAULTY
    assert "replace the GPU" in health.verdict().message


def test_an_ecc_error_that_could_not_be_corrected_is_fatal() -> None:
    health = after()
    assert health.note(Event("GPU-0", double_bit_ecc=True))
    assert health.verdict().health == FAULTY


def test_without_events_a_rise_of_uncorrected_errors_is_fatal() -> None:
    health = CardHealth()
    health.take(card(uncorrected=3, watched=False))
    assert health.verdict().usable, "those before the agent's start may have been contained"
    health.take(card(uncorrected=5, watched=False))
    assert health.verdict().message == "2 memory errors could not be corrected: reset the GPU"


def test_with_events_the_count_of_uncorrected_errors_says_nothing() -> None:
    health = after()
    health.take(card(uncorrected=5))
    assert health.verdict().usable
    health.take(card(uncorrected=5, watched=False))
    assert health.verdict().usable


def test_a_fault_of_a_mig_instance_is_its_own_and_one_of_the_card_is_everyones() -> None:
    health = after()
    health.note(Event("GPU-0", xid=95, instance=(1, 0)))
    assert not health.verdict((1, 0)).usable
    assert health.verdict((2, 0)).usable
    assert health.xid_counts((1, 0)) == {95: 1}
    assert health.xid_counts((2, 0)) == {}
    health.note(Event("GPU-0", xid=79))
    assert not health.verdict((2, 0)).usable
    assert health.xid_counts((2, 0)) == {79: 1}


def test_a_driver_that_is_loaded_anew_has_reset_the_gpu() -> None:
    health = after(48)
    health.renew()
    health.take(card())
    assert health.verdict().usable


def test_what_is_kept_of_a_gpu_is_bounded() -> None:
    health = after(*range(1, 200))
    assert len(health.xid_counts()) == MAX_XIDS
    assert len(health.verdict().message) < 300


def test_only_the_first_of_a_kind_is_news() -> None:
    health = after()
    assert health.note(Event("GPU-0", xid=13))
    assert not health.note(Event("GPU-0", xid=13))
