"""How a function's calls are made, as far as that differs from the defaults. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

_OF_REQUESTS = frozenset({"router", "timeout_s"})


@dataclass(frozen=True, slots=True, kw_only=True)
class CallOptions:
    """What can be said of calls; None everywhere means the deployment's or the mesh's default.

    Attributes:
        router: address of the router; None means FOREBAY_ROUTER, else the local mesh.
        timeout_s: seconds a `remote` call may take, waiting included.
        priority: of tasks: `high`, `normal` or `low`.
        labels: of tasks, to find them by.
        max_retries: attempts of a task after the first.
        min_backoff_s: pause before the second attempt, doubling from then on, in seconds.
        max_backoff_s: longest pause, in seconds.
        attempt_timeout_s: seconds one attempt of a task may take.
        ttl_s: seconds within which a task must have ended.
        result_ttl_s: seconds for which a task's result is kept.
        callback_url: where a task's end is posted.
    """

    router: str | None = None
    timeout_s: float | None = None
    priority: str | None = None
    labels: Mapping[str, str] | None = None
    max_retries: int | None = None
    min_backoff_s: float | None = None
    max_backoff_s: float | None = None
    attempt_timeout_s: float | None = None
    ttl_s: float | None = None
    result_ttl_s: float | None = None
    callback_url: str | None = None

    def of_tasks(self) -> dict[str, Any]:
        """Those that tasks have, as far as they are set."""
        given = {each.name: getattr(self, each.name) for each in fields(self)}
        return {
            name: value
            for name, value in given.items()
            if value is not None and name not in _OF_REQUESTS
        }
