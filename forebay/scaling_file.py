"""The `scaling` part of a deployment file: one flat mapping with the names people know."""

from collections.abc import Iterator
from typing import Literal

from google.protobuf.duration_pb2 import Duration
from pydantic import BaseModel, ConfigDict, Field

from forebay.deployment_yaml import Problem
from forebay.v1.scaling_pb2 import (
    CustomPolicy,
    MaxOfPolicy,
    OngoingRequestsPolicy,
    Policy,
    QueueDepthPolicy,
    QueueSizePolicy,
    RequestLatencyPolicy,
    ScalingPolicy,
    ScalingWindow,
)
from services.wire import cron
from services.wire import deployment_words as words

STRICT = ConfigDict(extra="forbid", frozen=True, strict=True)

MAX_REPLICAS = 1000
MAX_POLICIES = 8
MAX_WINDOWS = 16

_OWN_KEYS = {
    "ongoing_requests": ("target_ongoing_requests", "look_back_period_s"),
    "queue_depth": ("max_tasks_per_replica",),
    "request_latency": ("desired_latency_s", "assumed_service_time_s"),
    "queue_size": ("queue_size",),
    "max_of": ("policies",),
    "custom": ("function",),
}
_REQUIRED_KEYS = {
    "request_latency": "desired_latency_s",
    "max_of": "policies",
    "custom": "function",
}
_POLICY_OF = {key: policy for policy, keys in _OWN_KEYS.items() for key in keys}

LEGAL = {
    "policy": "ongoing_requests, queue_depth, request_latency, queue_size, max_of or custom",
    "target_ongoing_requests": "a number above 0 up to 1024",
    "look_back_period_s": "seconds from 1 to 3600",
    "max_tasks_per_replica": "a whole number from 1 to 1000000",
    "desired_latency_s": "seconds above 0 up to 86400",
    "assumed_service_time_s": "seconds above 0 up to 86400",
    "queue_size": "a whole number from 0 to 1000000",
    "function": words.LEGAL_FUNCTION,
    "policies": f"a list of 1 to {MAX_POLICIES} mappings, each a policy with its own keys",
    "min_replicas": f"a whole number from 0 to {MAX_REPLICAS}",
    "max_replicas": f"a whole number from 1 to {MAX_REPLICAS}",
    "initial_replicas": "a whole number from min_replicas to max_replicas",
    "upscaling_factor": "a number above 0 up to 100",
    "downscaling_factor": "a number above 0 up to 1",
    "upscale_delay_s": "seconds from 0 to 3600",
    "downscale_delay_s": "seconds from 0 to 86400",
    "downscale_to_zero_delay_s": "seconds from 0 to 86400",
    "advisory": "true or false",
    "windows": f"a list of 1 to {MAX_WINDOWS} mappings, each with begin, end and min_replicas",
}

LEGAL_IN_WINDOWS = {
    "begin": "a cron expression of five fields such as 0 8 * * MON-FRI",
    "end": "a cron expression of five fields such as 0 18 * * MON-FRI",
    "timezone": "an IANA name such as Europe/Berlin",
    "min_replicas": f"a whole number from 1 to {MAX_REPLICAS}",
}


class PolicyKeys(BaseModel):
    """What turns load into a number of replicas, and the keys of each policy."""

    model_config = STRICT

    policy: (
        Literal[
            "ongoing_requests", "queue_depth", "request_latency", "queue_size", "max_of", "custom"
        ]
        | None
    ) = Field(
        default=None,
        description="What turns load into a number of replicas. Left out: the policy whose key is "
        "there, else ongoing_requests.",
    )
    target_ongoing_requests: float | None = Field(
        default=None,
        gt=0,
        le=1024,
        description="ongoing_requests: requests each replica should have, waiting or running. "
        "Unset: half of max_ongoing_requests, at least 1.",
    )
    look_back_period_s: float = Field(
        default=10.0,
        ge=1,
        le=3600,
        description="ongoing_requests: seconds over which the mean is taken.",
    )
    max_tasks_per_replica: int = Field(
        default=30,
        ge=1,
        le=1_000_000,
        description="queue_depth: waiting and running requests or tasks for each replica.",
    )
    desired_latency_s: float | None = Field(
        default=None,
        gt=0,
        le=86400,
        description="request_latency, required there: seconds within which the last waiting "
        "request should start.",
    )
    assumed_service_time_s: float | None = Field(
        default=None,
        gt=0,
        le=86400,
        description="request_latency: seconds a request takes, until that has been measured. "
        "Unset: longer than desired_latency_s.",
    )
    queue_size: int = Field(
        default=1,
        ge=0,
        le=1_000_000,
        description="queue_size: requests that may be left waiting.",
    )
    function: str | None = Field(
        default=None,
        description="custom, required there: Python function `package.module:function` that the "
        "autoscaler can import; it gets the signals and returns the number of replicas.",
    )

    @property
    def chosen(self) -> str:
        """Name of the policy: the one that is named, else the one whose key is there."""
        if self.policy is not None:
            return self.policy
        policies = sorted({_POLICY_OF[key] for key in self.own_keys})
        return policies[0] if len(policies) == 1 else "ongoing_requests"

    @property
    def own_keys(self) -> list[str]:
        """Keys given that belong to one policy."""
        return [key for key in _POLICY_OF if key in self.model_fields_set]

    def to_policy(self, max_ongoing_requests: int) -> Policy:
        """The policy as the autoscaler takes it, with defaults filled in."""
        match self.chosen:
            case "queue_depth":
                depth = QueueDepthPolicy(max_tasks_per_replica=self.max_tasks_per_replica)
                return Policy(queue_depth=depth)
            case "request_latency":
                latency = RequestLatencyPolicy(desired_latency=duration(self.desired_latency_s))
                if self.assumed_service_time_s is not None:
                    latency.assumed_service_time.CopyFrom(duration(self.assumed_service_time_s))
                return Policy(request_latency=latency)
            case "queue_size":
                return Policy(queue_size=QueueSizePolicy(queue_size=self.queue_size))
            case "custom":
                return Policy(custom=CustomPolicy(function=self.function or ""))
        half = max(1.0, max_ongoing_requests / 2)
        mean = OngoingRequestsPolicy(
            target_ongoing_requests=self.target_ongoing_requests or half,
            look_back_period=duration(self.look_back_period_s),
        )
        return Policy(ongoing_requests=mean)


class InnerPolicy(PolicyKeys):
    """One of the policies of a max_of."""

    policy: (
        Literal["ongoing_requests", "queue_depth", "request_latency", "queue_size", "custom"] | None
    ) = Field(
        default=None,
        description="What turns load into a number of replicas. Left out: the policy whose key is "
        "there, else ongoing_requests.",
    )


class WindowSpec(BaseModel):
    """A time with a higher min_replicas."""

    model_config = STRICT

    begin: str = Field(
        description="Cron expression of five fields: from each time that it comes there are at "
        "least min_replicas."
    )
    end: str = Field(description="Cron expression of five fields: until it comes next.")
    timezone: str = Field(default="", description="IANA name of the time zone of both. Empty: UTC.")
    min_replicas: int = Field(
        ge=1,
        le=MAX_REPLICAS,
        description="Never fewer replicas than this in the meantime; counts up to the policy's "
        "max_replicas.",
    )

    def to_proto(self) -> ScalingWindow:
        """The window as the autoscaler takes it."""
        return ScalingWindow(
            begin=self.begin,
            end=self.end,
            timezone=self.timezone,
            min_replicas=self.min_replicas,
        )


class ScalingSpec(PolicyKeys):
    """How the number of replicas follows the load."""

    policies: list[InnerPolicy] | None = Field(
        default=None,
        min_length=1,
        max_length=MAX_POLICIES,
        description="max_of, required there: policies of which the largest count is taken, each "
        "a mapping with `policy` and that policy's keys.",
    )
    min_replicas: int = Field(
        default=0, ge=0, le=MAX_REPLICAS, description="Never fewer replicas than this."
    )
    max_replicas: int | None = Field(
        default=None,
        ge=1,
        le=MAX_REPLICAS,
        description="Never more replicas than this. Unset: 1 or min_replicas, whichever is more.",
    )
    initial_replicas: int | None = Field(
        default=None,
        ge=0,
        le=MAX_REPLICAS,
        description="Replicas to begin with, within the bounds. Unset: min_replicas.",
    )
    upscaling_factor: float = Field(
        default=1.0,
        gt=0,
        le=100,
        description="Share of the distance to a higher count that one decision takes; above 1 "
        "overshoots on purpose.",
    )
    downscaling_factor: float = Field(
        default=1.0,
        gt=0,
        le=1,
        description="Share of the distance to a lower count that one decision takes.",
    )
    upscale_delay_s: float = Field(
        default=3.0,
        ge=0,
        le=3600,
        description="Seconds for which more replicas must be wanted. From zero there is no delay.",
    )
    downscale_delay_s: float = Field(
        default=120.0,
        ge=0,
        le=86400,
        description="Seconds for which fewer replicas must be wanted.",
    )
    downscale_to_zero_delay_s: float = Field(
        default=300.0,
        ge=0,
        le=86400,
        description="Seconds for which no replica must be wanted before the last one goes.",
    )
    advisory: bool = Field(
        default=False,
        description="Make decisions and keep them, but do not act on them.",
    )
    windows: list[WindowSpec] | None = Field(
        default=None,
        min_length=1,
        max_length=MAX_WINDOWS,
        description="Times with a higher min_replicas, each a mapping with `begin`, `end`, "
        "`timezone` and `min_replicas`.",
    )

    @property
    def most(self) -> int:
        """`max_replicas`, or what it is when it is unset."""
        return self.max_replicas or max(1, self.min_replicas)

    def to_policy(self, max_ongoing_requests: int) -> Policy:
        """The policy as the autoscaler takes it, with defaults filled in."""
        if self.chosen != "max_of":
            return super().to_policy(max_ongoing_requests)
        policies = [policy.to_policy(max_ongoing_requests) for policy in self.policies or ()]
        return Policy(max_of=MaxOfPolicy(policies=policies))

    def to_proto(self, max_ongoing_requests: int) -> ScalingPolicy:
        """The scaling policy as the autoscaler takes it, with defaults filled in.

        Args:
            max_ongoing_requests: slots of a replica of the deployment.
        """
        return ScalingPolicy(
            policy=self.to_policy(max_ongoing_requests),
            min_replicas=self.min_replicas,
            max_replicas=self.most,
            initial_replicas=self.initial_replicas,
            upscaling_factor=self.upscaling_factor,
            downscaling_factor=self.downscaling_factor,
            upscale_delay=duration(self.upscale_delay_s),
            downscale_delay=duration(self.downscale_delay_s),
            downscale_to_zero_delay=duration(self.downscale_to_zero_delay_s),
            advisory=self.advisory,
            windows=[window.to_proto() for window in self.windows or ()],
        )


def duration(seconds: float | None) -> Duration:
    """Seconds as a Duration, to the nanosecond."""
    result = Duration()
    result.FromNanoseconds(round((seconds or 0.0) * 1e9))
    return result


def problems_of(spec: ScalingSpec) -> Iterator[Problem]:
    """What is wrong between keys that are each legal, by the paths the keys have here."""
    yield from _policy_problems(spec, "scaling")
    custom_count = 0
    for index, policy in enumerate(spec.policies or ()):
        yield from _policy_problems(policy, f"scaling.policies.{index}")
        custom_count += policy.chosen == "custom"
    if custom_count > 1:
        yield Problem("scaling.policies", f"has {custom_count} custom policies; there may be one")
    for index, window in enumerate(spec.windows or ()):
        yield from _window_problems(window, f"scaling.windows.{index}")
    if spec.min_replicas > spec.most:
        yield Problem(
            "scaling.min_replicas",
            f"= {spec.min_replicas} is above max_replicas = {spec.most}; lower the one or raise "
            "the other",
        )
    first = spec.initial_replicas
    if first is not None and not spec.min_replicas <= first <= spec.most:
        yield Problem(
            "scaling.initial_replicas",
            f"= {first}; legal is a whole number from {spec.min_replicas} to {spec.most}, from "
            "min_replicas to max_replicas",
        )


def _window_problems(window: WindowSpec, path: str) -> Iterator[Problem]:
    try:
        cron.zone_of(window.timezone)
    except cron.CronError as error:
        yield Problem(f"{path}.timezone", f"is wrong: {error}")
        return
    for key in ("begin", "end"):
        try:
            cron.parse(getattr(window, key), window.timezone)
        except cron.CronError as error:
            yield Problem(f"{path}.{key}", f"is wrong: {error}")
    if window.begin.split() == window.end.split():
        yield Problem(
            f"{path}.end",
            f"= {window.end!r} is the same as begin, so that the window would never be open; let "
            "it end later",
        )


def _policy_problems(spec: PolicyKeys, path: str) -> Iterator[Problem]:
    given = sorted({_POLICY_OF[key] for key in spec.own_keys})
    if spec.policy is None and len(given) > 1:
        keys = " and ".join(spec.own_keys)
        which = " or ".join(given)
        yield Problem(path, f"has {keys}, of different policies; say which with policy: {which}")
        return
    for key in spec.own_keys:
        if _POLICY_OF[key] != spec.chosen:
            yield Problem(
                f"{path}.{key}",
                f"belongs to the policy {_POLICY_OF[key]}, but the policy is {spec.chosen}; drop "
                f"it or write policy: {_POLICY_OF[key]}",
            )
    needed = _REQUIRED_KEYS.get(spec.chosen)
    if needed and needed not in spec.model_fields_set:
        sentence = f"is missing; the policy {spec.chosen} needs it; legal is {LEGAL[needed]}"
        yield Problem(f"{path}.{needed}", sentence)
    if spec.function is not None and not words.is_function(spec.function):
        yield Problem(f"{path}.function", f"= {spec.function!r}; legal is {LEGAL['function']}")
