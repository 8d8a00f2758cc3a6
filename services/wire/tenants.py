"""Pure: whom a call speaks for."""

import re
from collections.abc import Iterable

from forebay.v1.envelope_pb2 import OUTCOME_INVALID_ARGUMENT
from services.wire.names import quoted
from services.wire.outcomes import OutcomeError

TENANT_KEY = "forebay-tenant"
"""Call metadata that names the tenant."""

DEFAULT_TENANT = "default"

_TENANT = re.compile(r"[a-z][a-z0-9-]{0,62}")


def tenant_of(metadata: Iterable[tuple[str, str | bytes]] | None) -> str:
    """The tenant that a call's metadata names; `default` if it names none.

    Raises:
        OutcomeError: INVALID_ARGUMENT if what it names cannot be a tenant, or if it names two.
    """
    named: str | None = None
    for key, value in metadata or ():
        if key != TENANT_KEY:
            continue
        text = value if isinstance(value, str) else value.decode(errors="replace")
        if _TENANT.fullmatch(text) is None:
            raise _invalid(
                f"the metadata {TENANT_KEY} is {quoted(text)}; a tenant is 1 to 63 of a-z, 0-9 "
                "and '-', starting with a letter"
            )
        if named is not None and named != text:
            raise _invalid(
                f"the metadata {TENANT_KEY} names both {quoted(named)} and {quoted(text)}; send one"
            )
        named = text
    return DEFAULT_TENANT if named is None else named


def _invalid(message: str) -> OutcomeError:
    return OutcomeError(OUTCOME_INVALID_ARGUMENT, message)
