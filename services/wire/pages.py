"""Pages of a list that is ordered by name."""

import base64
import binascii
from bisect import bisect_right
from collections.abc import Sequence
from typing import Protocol, TypeVar

from services.wire.names import quoted

DEFAULT_PAGE_SIZE = 50
MAX_PAGE_SIZE = 1000

_MARK = "after:"


class PageError(ValueError):
    """A page size or token that is not legal; the text says why."""


class Named(Protocol):
    """A resource."""

    name: str


N = TypeVar("N", bound=Named)


def page(resources: Sequence[N], page_size: int, page_token: str) -> tuple[Sequence[N], str]:
    """One page and the token of the next, which is empty on the last page.

    A token says after which name to go on, so that what is created or deleted in between neither
    repeats nor hides the others.

    Args:
        resources: all of them, by name.
        page_size: 0 means 50, above 1000 means 1000.
        page_token: empty, or what the page before gave.

    Raises:
        PageError: if the size is negative or the token was not given by a page before.
    """
    if page_size < 0:
        raise PageError(f"page_size = {page_size}: it must be 0 or more")
    size = min(page_size or DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE)
    start = 0
    if page_token:
        start = bisect_right([resource.name for resource in resources], _read(page_token))
    chosen = resources[start : start + size]
    more = start + size < len(resources)
    return chosen, _token(chosen[-1].name) if more else ""


def _token(name: str) -> str:
    return base64.urlsafe_b64encode((_MARK + name).encode()).decode()


def _read(token: str) -> str:
    try:
        text = base64.b64decode(token.encode("ascii"), altchars=b"-_", validate=True).decode()
    except (binascii.Error, UnicodeError):
        text = ""
    if not text.startswith(_MARK):
        raise PageError(
            f"page_token = {quoted(token)}: not a token of this list; use next_page_token of the "
            "page before, or leave it empty to begin"
        )
    return text.removeprefix(_MARK)
