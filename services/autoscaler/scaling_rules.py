"""What a scaling policy may be: defaults and legal values. Pure.

What is kept of a policy is explicit: an unset field gets its default when the deployment is
declared, so that a later version's defaults change nothing that runs. Unset stay only
`initial_replicas` (it follows `min_replicas`) and `assumed_service_time` (not known).
"""

from collections.abc import Iterator

from forebay.v1.scaling_pb2 import Policy, RequestLatencyPolicy, ScalingPolicy
from services.autoscaler import ranges
from services.autoscaler.scaling import declared as default
from services.wire import cron
from services.wire import deployment_words as words
from services.wire.names import quoted
from services.wire.status import invalid_argument

MAX_REPLICAS = 1000
MAX_POLICIES = 8
MAX_CUSTOM_POLICIES = 1
MAX_WINDOWS = 16

_HOUR_S = 3600
_DAY_S = 86_400


def fill(scaling: ScalingPolicy, max_ongoing_requests: int) -> None:
    """Fills in the defaults.

    Args:
        scaling: changed in place.
        max_ongoing_requests: slots of a replica of the deployment.
    """
    scaling.max_replicas = scaling.max_replicas or max(1, scaling.min_replicas)
    if not scaling.HasField("upscaling_factor"):
        scaling.upscaling_factor = 1.0
    if not scaling.HasField("downscaling_factor"):
        scaling.downscaling_factor = 1.0
    for field, default_s in (
        ("upscale_delay", default.UPSCALE_DELAY_S),
        ("downscale_delay", default.DOWNSCALE_DELAY_S),
        ("downscale_to_zero_delay", default.TO_ZERO_DELAY_S),
    ):
        if not scaling.HasField(field):
            getattr(scaling, field).FromSeconds(default_s)
    for _, policy in _policies(scaling):
        _fill_policy(policy, max_ongoing_requests)


def check(scaling: ScalingPolicy) -> None:
    """Checks a policy that is filled in.

    Raises:
        StatusError: INVALID_ARGUMENT naming the field, its value and what is legal.
    """
    _check_bounds(scaling)
    ranges.above_zero("scaling.upscaling_factor", scaling.upscaling_factor, 100)
    ranges.above_zero("scaling.downscaling_factor", scaling.downscaling_factor, 1)
    ranges.duration("scaling.upscale_delay", scaling.upscale_delay, 0, _HOUR_S)
    ranges.duration("scaling.downscale_delay", scaling.downscale_delay, 0, _DAY_S)
    ranges.duration("scaling.downscale_to_zero_delay", scaling.downscale_to_zero_delay, 0, _DAY_S)
    _check_windows(scaling)
    for name, policy in _policies(scaling):
        _check_policy(name, policy)
    functions = custom_functions(scaling)
    if len(functions) > MAX_CUSTOM_POLICIES:
        raise invalid_argument(
            f"scaling.policy.max_of.policies has {len(functions)} custom policies: there may be at "
            f"most {MAX_CUSTOM_POLICIES}; let one function call the others"
        )


def custom_functions(scaling: ScalingPolicy) -> list[str]:
    """The functions that a policy calls, as `package.module:function`."""
    return [
        policy.custom.function
        for _, policy in _policies(scaling)
        if policy.WhichOneof("kind") == "custom"
    ]


def _policies(scaling: ScalingPolicy) -> Iterator[tuple[str, Policy]]:
    """The policy and those it is the largest of, each with the name of its field."""
    yield "scaling.policy", scaling.policy
    if scaling.policy.WhichOneof("kind") == "max_of":
        for index, policy in enumerate(scaling.policy.max_of.policies):
            yield f"scaling.policy.max_of.policies[{index}]", policy


def _fill_policy(policy: Policy, max_ongoing_requests: int) -> None:
    match policy.WhichOneof("kind"):
        case "ongoing_requests":
            mean = policy.ongoing_requests
            mean.target_ongoing_requests = (
                mean.target_ongoing_requests
                or default.target_ongoing_requests(max_ongoing_requests)
            )
            if not mean.HasField("look_back_period"):
                mean.look_back_period.FromSeconds(default.LOOK_BACK_S)
        case "queue_depth":
            depth = policy.queue_depth
            depth.max_tasks_per_replica = (
                depth.max_tasks_per_replica or default.MAX_TASKS_PER_REPLICA
            )
        case "queue_size":
            if not policy.queue_size.HasField("queue_size"):
                policy.queue_size.queue_size = default.QUEUE_SIZE


def _check_bounds(scaling: ScalingPolicy) -> None:
    low, high = scaling.min_replicas, scaling.max_replicas
    ranges.whole("scaling.min_replicas", low, 0, MAX_REPLICAS)
    ranges.whole("scaling.max_replicas", high, 1, MAX_REPLICAS)
    if low > high:
        raise invalid_argument(
            f"scaling.min_replicas = {low} is above scaling.max_replicas = {high}: lower the one "
            "or raise the other"
        )
    if scaling.HasField("initial_replicas") and not low <= scaling.initial_replicas <= high:
        raise invalid_argument(
            f"scaling.initial_replicas = {scaling.initial_replicas}: it must be {low} to {high}, "
            "from min_replicas to max_replicas"
        )


def _check_windows(scaling: ScalingPolicy) -> None:
    if len(scaling.windows) > MAX_WINDOWS:
        raise invalid_argument(
            f"scaling.windows has {len(scaling.windows)} windows: there may be at most "
            f"{MAX_WINDOWS}; put hours and days with the same min_replicas into one cron expression"
        )
    for index, window in enumerate(scaling.windows):
        name = f"scaling.windows[{index}]"
        ranges.whole(f"{name}.min_replicas", window.min_replicas, 1, MAX_REPLICAS)
        try:
            cron.zone_of(window.timezone)
        except cron.CronError as error:
            raise invalid_argument(f"{name}.timezone: {error}") from error
        for field in ("begin", "end"):
            try:
                cron.parse(getattr(window, field), window.timezone)
            except cron.CronError as error:
                raise invalid_argument(f"{name}.{field}: {error}") from error
        if window.begin.split() == window.end.split():
            raise invalid_argument(
                f"{name}.end = {quoted(window.end)} is the same as begin: the window would never "
                "be open; let it end later"
            )


def _check_policy(name: str, policy: Policy) -> None:
    kind = policy.WhichOneof("kind")
    match kind:
        case None:
            legal = ", ".join(field.name for field in Policy.DESCRIPTOR.fields)
            raise invalid_argument(f"{name} is empty: set one of {legal}")
        case "ongoing_requests":
            mean = policy.ongoing_requests
            field = f"{name}.ongoing_requests"
            ranges.above_zero(
                f"{field}.target_ongoing_requests", mean.target_ongoing_requests, 1024
            )
            ranges.duration(f"{field}.look_back_period", mean.look_back_period, 1, _HOUR_S)
        case "queue_depth":
            field = f"{name}.queue_depth.max_tasks_per_replica"
            ranges.whole(field, policy.queue_depth.max_tasks_per_replica, 1, 1_000_000)
        case "request_latency":
            _check_latency(f"{name}.request_latency", policy.request_latency)
        case "queue_size":
            field = f"{name}.queue_size.queue_size"
            ranges.whole(field, policy.queue_size.queue_size, 0, 1_000_000)
        case "max_of":
            _check_max_of(name, policy)
        case "custom":
            _check_function(f"{name}.custom.function", policy.custom.function)


def _check_latency(field: str, latency: RequestLatencyPolicy) -> None:
    if not latency.HasField("desired_latency"):
        raise invalid_argument(
            f"{field}.desired_latency is missing: it must be above 0 and at most {_DAY_S} seconds"
        )
    ranges.duration_above_zero(f"{field}.desired_latency", latency.desired_latency, _DAY_S)
    if latency.HasField("assumed_service_time"):
        ranges.duration_above_zero(
            f"{field}.assumed_service_time", latency.assumed_service_time, _DAY_S
        )


def _check_max_of(name: str, policy: Policy) -> None:
    if name != "scaling.policy":
        raise invalid_argument(
            f"{name} is a max_of inside a max_of: put its policies into the outer one"
        )
    count = len(policy.max_of.policies)
    if not 1 <= count <= MAX_POLICIES:
        raise invalid_argument(
            f"{name}.max_of.policies has {count} policies: there must be 1 to {MAX_POLICIES}"
        )


def _check_function(field: str, function: str) -> None:
    if not words.is_function(function):
        raise invalid_argument(f"{field} = {quoted(function)}: it must be {words.LEGAL_FUNCTION}")
