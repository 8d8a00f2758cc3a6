"""Scaling policies as objects, with the parameter names of a deployment file. Pure.

What they mean, their ranges and defaults: docs/models.md, under `scaling`. A parameter that is None
takes that default. They are checked with the rest of the function, when it is deployed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaling:
    """What all policies share.

    Attributes:
        min_replicas: never fewer, 0 to 1000.
        max_replicas: never more, 1 to 1000.
        initial_replicas: to begin with, within the bounds.
        upscaling_factor: share of the distance to a higher count one decision takes, up to 100.
        downscaling_factor: share of the distance to a lower count one decision takes, up to 1.
        upscale_delay_s: seconds for which more must be wanted.
        downscale_delay_s: seconds for which fewer must be wanted.
        downscale_to_zero_delay_s: seconds for which none must be wanted.
        advisory: decide and do not act.
        windows: times with a higher `min_replicas`, as in a deployment file.
    """

    policy: ClassVar[str]

    min_replicas: int = 0
    max_replicas: int | None = None
    initial_replicas: int | None = None
    upscaling_factor: float | None = None
    downscaling_factor: float | None = None
    upscale_delay_s: float | None = None
    downscale_delay_s: float | None = None
    downscale_to_zero_delay_s: float | None = None
    advisory: bool = False
    windows: Sequence[Mapping[str, Any]] | None = None

    def keys_set(self) -> dict[str, Any]:
        """The `scaling` part of a deployment file that says the same."""
        given = {field.name: getattr(self, field.name) for field in fields(self)}
        return {
            "policy": self.policy,
            **{key: value for key, value in given.items() if value is not None},
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueDepth(Scaling):
    """ceil((queued + ongoing) / max_tasks_per_replica); the policy of a function by default."""

    policy: ClassVar[str] = "queue_depth"

    max_tasks_per_replica: int = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class OngoingRequests(Scaling):
    """Mean of (queued + ongoing) over look_back_period_s, divided by target_ongoing_requests."""

    policy: ClassVar[str] = "ongoing_requests"

    target_ongoing_requests: float | None = None
    look_back_period_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestLatency(Scaling):
    """The fewest replicas for which the last waiting one starts within desired_latency_s."""

    policy: ClassVar[str] = "request_latency"

    desired_latency_s: float
    assumed_service_time_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueSize(Scaling):
    """The fewest replicas for which at most queue_size requests are left waiting."""

    policy: ClassVar[str] = "queue_size"

    queue_size: int = 1
