import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ScalingPolicy(_message.Message):
    __slots__ = ("policy", "min_replicas", "max_replicas", "initial_replicas", "upscaling_factor", "downscaling_factor", "upscale_delay", "downscale_delay", "downscale_to_zero_delay", "advisory", "windows")
    POLICY_FIELD_NUMBER: _ClassVar[int]
    MIN_REPLICAS_FIELD_NUMBER: _ClassVar[int]
    MAX_REPLICAS_FIELD_NUMBER: _ClassVar[int]
    INITIAL_REPLICAS_FIELD_NUMBER: _ClassVar[int]
    UPSCALING_FACTOR_FIELD_NUMBER: _ClassVar[int]
    DOWNSCALING_FACTOR_FIELD_NUMBER: _ClassVar[int]
    UPSCALE_DELAY_FIELD_NUMBER: _ClassVar[int]
    DOWNSCALE_DELAY_FIELD_NUMBER: _ClassVar[int]
    DOWNSCALE_TO_ZERO_DELAY_FIELD_NUMBER: _ClassVar[int]
    ADVISORY_FIELD_NUMBER: _ClassVar[int]
    WINDOWS_FIELD_NUMBER: _ClassVar[int]
    policy: Policy
    min_replicas: int
    max_replicas: int
    initial_replicas: int
    upscaling_factor: float
    downscaling_factor: float
    upscale_delay: _duration_pb2.Duration
    downscale_delay: _duration_pb2.Duration
    downscale_to_zero_delay: _duration_pb2.Duration
    advisory: bool
    windows: _containers.RepeatedCompositeFieldContainer[ScalingWindow]
    def __init__(self, policy: _Optional[_Union[Policy, _Mapping]] = ..., min_replicas: _Optional[int] = ..., max_replicas: _Optional[int] = ..., initial_replicas: _Optional[int] = ..., upscaling_factor: _Optional[float] = ..., downscaling_factor: _Optional[float] = ..., upscale_delay: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., downscale_delay: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., downscale_to_zero_delay: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., advisory: _Optional[bool] = ..., windows: _Optional[_Iterable[_Union[ScalingWindow, _Mapping]]] = ...) -> None: ...

class ScalingWindow(_message.Message):
    __slots__ = ("begin", "end", "timezone", "min_replicas")
    BEGIN_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    TIMEZONE_FIELD_NUMBER: _ClassVar[int]
    MIN_REPLICAS_FIELD_NUMBER: _ClassVar[int]
    begin: str
    end: str
    timezone: str
    min_replicas: int
    def __init__(self, begin: _Optional[str] = ..., end: _Optional[str] = ..., timezone: _Optional[str] = ..., min_replicas: _Optional[int] = ...) -> None: ...

class Policy(_message.Message):
    __slots__ = ("ongoing_requests", "queue_depth", "request_latency", "queue_size", "max_of", "custom")
    ONGOING_REQUESTS_FIELD_NUMBER: _ClassVar[int]
    QUEUE_DEPTH_FIELD_NUMBER: _ClassVar[int]
    REQUEST_LATENCY_FIELD_NUMBER: _ClassVar[int]
    QUEUE_SIZE_FIELD_NUMBER: _ClassVar[int]
    MAX_OF_FIELD_NUMBER: _ClassVar[int]
    CUSTOM_FIELD_NUMBER: _ClassVar[int]
    ongoing_requests: OngoingRequestsPolicy
    queue_depth: QueueDepthPolicy
    request_latency: RequestLatencyPolicy
    queue_size: QueueSizePolicy
    max_of: MaxOfPolicy
    custom: CustomPolicy
    def __init__(self, ongoing_requests: _Optional[_Union[OngoingRequestsPolicy, _Mapping]] = ..., queue_depth: _Optional[_Union[QueueDepthPolicy, _Mapping]] = ..., request_latency: _Optional[_Union[RequestLatencyPolicy, _Mapping]] = ..., queue_size: _Optional[_Union[QueueSizePolicy, _Mapping]] = ..., max_of: _Optional[_Union[MaxOfPolicy, _Mapping]] = ..., custom: _Optional[_Union[CustomPolicy, _Mapping]] = ...) -> None: ...

class OngoingRequestsPolicy(_message.Message):
    __slots__ = ("target_ongoing_requests", "look_back_period")
    TARGET_ONGOING_REQUESTS_FIELD_NUMBER: _ClassVar[int]
    LOOK_BACK_PERIOD_FIELD_NUMBER: _ClassVar[int]
    target_ongoing_requests: float
    look_back_period: _duration_pb2.Duration
    def __init__(self, target_ongoing_requests: _Optional[float] = ..., look_back_period: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class QueueDepthPolicy(_message.Message):
    __slots__ = ("max_tasks_per_replica",)
    MAX_TASKS_PER_REPLICA_FIELD_NUMBER: _ClassVar[int]
    max_tasks_per_replica: int
    def __init__(self, max_tasks_per_replica: _Optional[int] = ...) -> None: ...

class RequestLatencyPolicy(_message.Message):
    __slots__ = ("desired_latency", "assumed_service_time")
    DESIRED_LATENCY_FIELD_NUMBER: _ClassVar[int]
    ASSUMED_SERVICE_TIME_FIELD_NUMBER: _ClassVar[int]
    desired_latency: _duration_pb2.Duration
    assumed_service_time: _duration_pb2.Duration
    def __init__(self, desired_latency: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., assumed_service_time: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class QueueSizePolicy(_message.Message):
    __slots__ = ("queue_size",)
    QUEUE_SIZE_FIELD_NUMBER: _ClassVar[int]
    queue_size: int
    def __init__(self, queue_size: _Optional[int] = ...) -> None: ...

class MaxOfPolicy(_message.Message):
    __slots__ = ("policies",)
    POLICIES_FIELD_NUMBER: _ClassVar[int]
    policies: _containers.RepeatedCompositeFieldContainer[Policy]
    def __init__(self, policies: _Optional[_Iterable[_Union[Policy, _Mapping]]] = ...) -> None: ...

class CustomPolicy(_message.Message):
    __slots__ = ("function",)
    FUNCTION_FIELD_NUMBER: _ClassVar[int]
    function: str
    def __init__(self, function: _Optional[str] = ...) -> None: ...

class ScaleSignals(_message.Message):
    __slots__ = ("queued_count", "ongoing_count", "redelivered_count", "mean_load", "mean_held_load", "service_time_s", "arrivals_per_second", "age_s", "assigned_replica_count", "ready_replica_count", "starting_replica_count", "unstartable_replica_count", "custom_replica_count", "custom_error", "queue_wait_p95_s", "poison_count", "window_min_replicas")
    QUEUED_COUNT_FIELD_NUMBER: _ClassVar[int]
    ONGOING_COUNT_FIELD_NUMBER: _ClassVar[int]
    REDELIVERED_COUNT_FIELD_NUMBER: _ClassVar[int]
    MEAN_LOAD_FIELD_NUMBER: _ClassVar[int]
    MEAN_HELD_LOAD_FIELD_NUMBER: _ClassVar[int]
    SERVICE_TIME_S_FIELD_NUMBER: _ClassVar[int]
    ARRIVALS_PER_SECOND_FIELD_NUMBER: _ClassVar[int]
    AGE_S_FIELD_NUMBER: _ClassVar[int]
    ASSIGNED_REPLICA_COUNT_FIELD_NUMBER: _ClassVar[int]
    READY_REPLICA_COUNT_FIELD_NUMBER: _ClassVar[int]
    STARTING_REPLICA_COUNT_FIELD_NUMBER: _ClassVar[int]
    UNSTARTABLE_REPLICA_COUNT_FIELD_NUMBER: _ClassVar[int]
    CUSTOM_REPLICA_COUNT_FIELD_NUMBER: _ClassVar[int]
    CUSTOM_ERROR_FIELD_NUMBER: _ClassVar[int]
    QUEUE_WAIT_P95_S_FIELD_NUMBER: _ClassVar[int]
    POISON_COUNT_FIELD_NUMBER: _ClassVar[int]
    WINDOW_MIN_REPLICAS_FIELD_NUMBER: _ClassVar[int]
    queued_count: int
    ongoing_count: int
    redelivered_count: int
    mean_load: float
    mean_held_load: float
    service_time_s: float
    arrivals_per_second: float
    age_s: float
    assigned_replica_count: int
    ready_replica_count: int
    starting_replica_count: int
    unstartable_replica_count: int
    custom_replica_count: float
    custom_error: str
    queue_wait_p95_s: float
    poison_count: int
    window_min_replicas: int
    def __init__(self, queued_count: _Optional[int] = ..., ongoing_count: _Optional[int] = ..., redelivered_count: _Optional[int] = ..., mean_load: _Optional[float] = ..., mean_held_load: _Optional[float] = ..., service_time_s: _Optional[float] = ..., arrivals_per_second: _Optional[float] = ..., age_s: _Optional[float] = ..., assigned_replica_count: _Optional[int] = ..., ready_replica_count: _Optional[int] = ..., starting_replica_count: _Optional[int] = ..., unstartable_replica_count: _Optional[int] = ..., custom_replica_count: _Optional[float] = ..., custom_error: _Optional[str] = ..., queue_wait_p95_s: _Optional[float] = ..., poison_count: _Optional[int] = ..., window_min_replicas: _Optional[int] = ...) -> None: ...

class ScaleState(_message.Message):
    __slots__ = ("target_replica_count", "fewest_wished", "most_wished")
    class Wish(_message.Message):
        __slots__ = ("at_s", "replica_count")
        AT_S_FIELD_NUMBER: _ClassVar[int]
        REPLICA_COUNT_FIELD_NUMBER: _ClassVar[int]
        at_s: float
        replica_count: int
        def __init__(self, at_s: _Optional[float] = ..., replica_count: _Optional[int] = ...) -> None: ...
    TARGET_REPLICA_COUNT_FIELD_NUMBER: _ClassVar[int]
    FEWEST_WISHED_FIELD_NUMBER: _ClassVar[int]
    MOST_WISHED_FIELD_NUMBER: _ClassVar[int]
    target_replica_count: int
    fewest_wished: _containers.RepeatedCompositeFieldContainer[ScaleState.Wish]
    most_wished: _containers.RepeatedCompositeFieldContainer[ScaleState.Wish]
    def __init__(self, target_replica_count: _Optional[int] = ..., fewest_wished: _Optional[_Iterable[_Union[ScaleState.Wish, _Mapping]]] = ..., most_wished: _Optional[_Iterable[_Union[ScaleState.Wish, _Mapping]]] = ...) -> None: ...

class ScaleStep(_message.Message):
    __slots__ = ("step", "replica_count", "sentence")
    STEP_FIELD_NUMBER: _ClassVar[int]
    REPLICA_COUNT_FIELD_NUMBER: _ClassVar[int]
    SENTENCE_FIELD_NUMBER: _ClassVar[int]
    step: str
    replica_count: float
    sentence: str
    def __init__(self, step: _Optional[str] = ..., replica_count: _Optional[float] = ..., sentence: _Optional[str] = ...) -> None: ...

class ScaleDecision(_message.Message):
    __slots__ = ("name", "decide_time", "now_s", "signals", "policy", "max_ongoing_requests", "pinned_replicas", "fixed_replicas", "state", "steps", "rule", "target_before", "target_after", "applied", "reason", "flip", "epoch")
    class Rule(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        RULE_UNSPECIFIED: _ClassVar[ScaleDecision.Rule]
        RULE_FIXED: _ClassVar[ScaleDecision.Rule]
        RULE_MANUAL: _ClassVar[ScaleDecision.Rule]
        RULE_INITIAL: _ClassVar[ScaleDecision.Rule]
        RULE_POLICY: _ClassVar[ScaleDecision.Rule]
        RULE_GAIN: _ClassVar[ScaleDecision.Rule]
        RULE_MIN_REPLICAS: _ClassVar[ScaleDecision.Rule]
        RULE_MAX_REPLICAS: _ClassVar[ScaleDecision.Rule]
        RULE_UPSCALE_DELAY: _ClassVar[ScaleDecision.Rule]
        RULE_DOWNSCALE_DELAY: _ClassVar[ScaleDecision.Rule]
        RULE_DOWNSCALE_TO_ZERO_DELAY: _ClassVar[ScaleDecision.Rule]
        RULE_FROM_ZERO: _ClassVar[ScaleDecision.Rule]
        RULE_UNKNOWN_SIGNALS: _ClassVar[ScaleDecision.Rule]
        RULE_FILLING_WINDOW: _ClassVar[ScaleDecision.Rule]
        RULE_STARTING: _ClassVar[ScaleDecision.Rule]
        RULE_NO_TRAFFIC: _ClassVar[ScaleDecision.Rule]
        RULE_CUSTOM_FAILED: _ClassVar[ScaleDecision.Rule]
        RULE_BUSY: _ClassVar[ScaleDecision.Rule]
        RULE_WINDOW: _ClassVar[ScaleDecision.Rule]
    RULE_UNSPECIFIED: ScaleDecision.Rule
    RULE_FIXED: ScaleDecision.Rule
    RULE_MANUAL: ScaleDecision.Rule
    RULE_INITIAL: ScaleDecision.Rule
    RULE_POLICY: ScaleDecision.Rule
    RULE_GAIN: ScaleDecision.Rule
    RULE_MIN_REPLICAS: ScaleDecision.Rule
    RULE_MAX_REPLICAS: ScaleDecision.Rule
    RULE_UPSCALE_DELAY: ScaleDecision.Rule
    RULE_DOWNSCALE_DELAY: ScaleDecision.Rule
    RULE_DOWNSCALE_TO_ZERO_DELAY: ScaleDecision.Rule
    RULE_FROM_ZERO: ScaleDecision.Rule
    RULE_UNKNOWN_SIGNALS: ScaleDecision.Rule
    RULE_FILLING_WINDOW: ScaleDecision.Rule
    RULE_STARTING: ScaleDecision.Rule
    RULE_NO_TRAFFIC: ScaleDecision.Rule
    RULE_CUSTOM_FAILED: ScaleDecision.Rule
    RULE_BUSY: ScaleDecision.Rule
    RULE_WINDOW: ScaleDecision.Rule
    NAME_FIELD_NUMBER: _ClassVar[int]
    DECIDE_TIME_FIELD_NUMBER: _ClassVar[int]
    NOW_S_FIELD_NUMBER: _ClassVar[int]
    SIGNALS_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    MAX_ONGOING_REQUESTS_FIELD_NUMBER: _ClassVar[int]
    PINNED_REPLICAS_FIELD_NUMBER: _ClassVar[int]
    FIXED_REPLICAS_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    RULE_FIELD_NUMBER: _ClassVar[int]
    TARGET_BEFORE_FIELD_NUMBER: _ClassVar[int]
    TARGET_AFTER_FIELD_NUMBER: _ClassVar[int]
    APPLIED_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    FLIP_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    name: str
    decide_time: _timestamp_pb2.Timestamp
    now_s: float
    signals: ScaleSignals
    policy: ScalingPolicy
    max_ongoing_requests: int
    pinned_replicas: int
    fixed_replicas: int
    state: ScaleState
    steps: _containers.RepeatedCompositeFieldContainer[ScaleStep]
    rule: ScaleDecision.Rule
    target_before: int
    target_after: int
    applied: bool
    reason: str
    flip: str
    epoch: int
    def __init__(self, name: _Optional[str] = ..., decide_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., now_s: _Optional[float] = ..., signals: _Optional[_Union[ScaleSignals, _Mapping]] = ..., policy: _Optional[_Union[ScalingPolicy, _Mapping]] = ..., max_ongoing_requests: _Optional[int] = ..., pinned_replicas: _Optional[int] = ..., fixed_replicas: _Optional[int] = ..., state: _Optional[_Union[ScaleState, _Mapping]] = ..., steps: _Optional[_Iterable[_Union[ScaleStep, _Mapping]]] = ..., rule: _Optional[_Union[ScaleDecision.Rule, str]] = ..., target_before: _Optional[int] = ..., target_after: _Optional[int] = ..., applied: _Optional[bool] = ..., reason: _Optional[str] = ..., flip: _Optional[str] = ..., epoch: _Optional[int] = ...) -> None: ...
