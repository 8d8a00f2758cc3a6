"""The bar of a map, on a terminal and where there is none."""

import os
import pty
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from forebay.task_client.progress_bar import ProgressBar

_CODES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@contextmanager
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """The other end of a terminal that standard error is within the block.

    No fixture: between those and a test, pytest sets standard error again.
    """
    ours, theirs = pty.openpty()
    os.set_blocking(ours, False)
    with monkeypatch.context() as patched, os.fdopen(theirs, "w") as stream:
        patched.setenv("TERM", "xterm")
        patched.setenv("COLUMNS", "100")
        patched.setattr(sys, "stderr", stream)
        yield ours
    os.close(ours)


def said(terminal: int) -> str:
    return _CODES.sub("", os.read(terminal, 1 << 16).decode())


def test_a_bar_is_there_before_the_first_item_and_ends_with_the_last(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with terminal(monkeypatch) as end:
        bar = ProgressBar.over([1, 2, 3], "classify", wanted=True)
        bar.show()
        bar.show()
        first = said(end)
        for failed in (False, True, False):
            bar.count(failed)
        bar.close()
        last = said(end)
    assert "classify" in first
    assert "0/3" in first
    assert "3/3 1 failed" in last


def test_there_is_no_bar_where_none_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    with terminal(monkeypatch) as end:
        bar = ProgressBar.over([1], "classify", wanted=False)
        bar.show()
        bar.count(False)
        bar.close()
        with pytest.raises(BlockingIOError):
            os.read(end, 1)


def test_there_is_no_bar_where_nobody_looks(capsys: pytest.CaptureFixture[str]) -> None:
    bar = ProgressBar.over([1], "classify", wanted=True)
    bar.show()
    bar.count(False)
    bar.close()
    assert capsys.readouterr().err == ""
