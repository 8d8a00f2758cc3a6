"""The runner in a plain process: items in, encoded results or failures out."""

import signal
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import forebay
from forebay.functions.runner.codec import decode, encode
from forebay.functions.runner.failures import Failure, parse
from forebay.functions.runner.worker import Request, Worker


def item(*args: Any, **kwargs: Any) -> bytes:
    return encode([args, kwargs])


def ok(outcome: Any) -> Any:
    assert isinstance(outcome, bytes), outcome
    return decode(outcome)["ok"]


def failed(outcome: Any) -> Failure:
    assert isinstance(outcome, Failure), outcome
    return outcome


def reciprocal(x: float, scale: float = 1.0) -> float:
    if x == 13:
        raise forebay.PermanentError("thirteen")
    return scale / x


def each(function: Callable[..., Any], *items: bytes, limit_s: float | None = None) -> list[Any]:
    return Worker(function, batch=False).answer([Request(items, limit_s)])[0]


def together(function: Callable[..., Any], *requests: list[bytes]) -> list[list[Any]]:
    return Worker(function, batch=True).answer([Request(items) for items in requests])


def test_arguments_come_by_position_and_by_name() -> None:
    first, second = each(reciprocal, item(4.0), item(2.0, scale=3))
    assert (ok(first), ok(second)) == (0.25, 1.5)


def test_the_canary_is_answered_without_a_call() -> None:
    (outcome,) = each(lambda: pytest.fail("called"), b"")
    assert ok(outcome) is None
    assert ok(together(lambda _: pytest.fail("called"), [b""])[0][0]) is None


def test_one_bad_item_does_not_fail_the_others() -> None:
    good, bad, never, last = each(reciprocal, item(1), item(0), item(13), item(2))
    assert (ok(good), ok(last)) == (1.0, 0.5)
    assert (failed(bad).kind, failed(bad).permanent) == ("ZeroDivisionError", False)
    assert (failed(never).kind, failed(never).permanent) == ("PermanentError", True)


def test_a_failure_names_the_line_of_user_code_and_no_line_of_the_runner() -> None:
    failure = failed(each(reciprocal, item(0))[0])
    assert "in reciprocal" in failure.traceback
    assert "return scale / x" in failure.traceback
    assert "_answer" not in failure.traceback


def test_a_failure_can_be_read_from_its_text() -> None:
    failure = failed(each(reciprocal, item(13))[0])
    assert failure.text.startswith("permanent: PermanentError: thirteen\nTraceback")
    assert parse(failure.text) == failure
    assert parse(f"{failure.text} [trace {'a1' * 16}]") == failure
    assert parse(f"deployments/f/tasks/t failed: {failure.text}") == failure
    assert parse("something else went wrong") is None


def test_a_long_failure_is_cut_to_what_a_trailer_holds() -> None:
    def long(_: Any) -> None:
        raise ValueError("x" * 100_000)

    assert len(failed(each(long, item(1))[0]).text) < 2500


@pytest.mark.parametrize("data", [b"\xc1", encode(3), encode([1]), encode([[1], {1: 2}])])
def test_an_item_that_no_client_sends_is_a_permanent_failure(data: bytes) -> None:
    assert failed(each(reciprocal, data)[0]).permanent
    assert failed(together(lambda xs: xs, [data])[0][0]).permanent


def test_a_result_that_cannot_travel_is_a_permanent_failure_that_says_what_can() -> None:
    failure = failed(each(lambda: {1, 2}, item())[0])
    assert failure.permanent
    assert "builtins.set cannot be sent; legal are" in failure.message


def test_leaving_the_process_is_a_failure() -> None:
    assert failed(each(sys.exit, item("bye"))[0]).kind == "SystemExit"


def test_items_of_several_requests_share_a_call() -> None:
    calls: list[int] = []

    def double(values: list[int]) -> list[int]:
        calls.append(len(values))
        return [value * 2 for value in values]

    first, second = together(double, [item(1), b"", item(2)], [item(3)])
    assert [ok(outcome) for outcome in first] == [2, None, 4]
    assert ok(second[0]) == 6
    assert calls == [3]


def test_a_bad_item_of_a_shared_call_fails_alone() -> None:
    def halve(values: list[int]) -> list[float]:
        return [1 / value for value in values]

    first, second = together(halve, [item(1), item(0)], [item(4)])
    assert (ok(first[0]), ok(second[0])) == (1.0, 0.25)
    assert failed(first[1]).kind == "ZeroDivisionError"


@pytest.mark.parametrize(
    ("returned", "said"),
    [
        ([1], "it got 2 and returned 1"),
        ("ab", "it returned str"),
        (None, "it returned NoneType"),
        ({1: 2, 3: 4}, "it returned dict"),
    ],
)
def test_a_list_of_another_length_is_refused(returned: Any, said: str) -> None:
    outcomes = together(lambda values: returned, [item(1), item(2)])[0]
    for outcome in outcomes:
        assert said in failed(outcome).message
        assert failed(outcome).permanent


def test_an_item_of_a_list_has_one_argument() -> None:
    outcome = together(lambda values: values, [item(1, 2)])[0][0]
    assert "takes items of one argument" in failed(outcome).message


@pytest.fixture
def _no_alarm_left() -> Iterator[None]:
    yield
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


@pytest.mark.usefixtures("_no_alarm_left")
def test_an_attempt_ends_when_its_time_is_over_and_the_rest_is_not_run() -> None:
    began_s = time.monotonic()
    outcomes = each(time.sleep, item(0), item(30), item(0), limit_s=0.1)
    assert time.monotonic() - began_s < 10
    assert ok(outcomes[0]) is None
    assert "attempt_timeout_s = 0.1 s" in failed(outcomes[1]).message
    assert "not run" in failed(outcomes[2]).message
    # The alarm is off: what comes next has its own time.
    assert ok(each(time.sleep, item(0.2), limit_s=30)[0]) is None


@pytest.mark.usefixtures("_no_alarm_left")
def test_a_shared_call_has_the_shortest_time_of_its_requests() -> None:
    worker = Worker(lambda values: time.sleep(30), batch=True)
    outcomes = worker.answer([Request([item(1)], 60), Request([item(2)], 0.1), Request([item(3)])])
    for (outcome,) in outcomes:
        assert "attempt_timeout_s = 0.1 s" in failed(outcome).message
