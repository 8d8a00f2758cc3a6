"""Whom a call speaks for."""

import pytest

from forebay.v1.envelope_pb2 import OUTCOME_INVALID_ARGUMENT
from services.wire.outcomes import OutcomeError
from services.wire.tenants import tenant_of


def test_a_call_speaks_for_whom_it_names() -> None:
    assert tenant_of([("traceparent", "x"), ("forebay-tenant", "acme-2")]) == "acme-2"
    assert tenant_of([("forebay-tenant", b"a" * 63)]) == "a" * 63


def test_without_a_name_it_is_the_default() -> None:
    assert tenant_of(None) == tenant_of([("other", "x")]) == "default"


@pytest.mark.parametrize("name", ["", "A", "1a", "a.b", "a*", "ä", "a" * 64, "a b", b"\xff"])
def test_a_name_that_is_none_is_refused(name: str | bytes) -> None:
    with pytest.raises(OutcomeError, match="1 to 63 of a-z") as caught:
        tenant_of([("forebay-tenant", name)])
    assert caught.value.outcome == OUTCOME_INVALID_ARGUMENT


def test_nobody_speaks_for_two() -> None:
    with pytest.raises(OutcomeError, match="both 'a' and 'b'"):
        tenant_of([("forebay-tenant", "a"), ("forebay-tenant", "b")])
