import datetime

from forebay.v1 import task_pb2 as _task_pb2
from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class TaskEnvelope(_message.Message):
    __slots__ = ("task_id", "deployment", "task", "body", "traceparent", "tracestate")
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    DEPLOYMENT_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    BODY_FIELD_NUMBER: _ClassVar[int]
    TRACEPARENT_FIELD_NUMBER: _ClassVar[int]
    TRACESTATE_FIELD_NUMBER: _ClassVar[int]
    task_id: str
    deployment: str
    task: _task_pb2.Task
    body: bytes
    traceparent: str
    tracestate: str
    def __init__(self, task_id: _Optional[str] = ..., deployment: _Optional[str] = ..., task: _Optional[_Union[_task_pb2.Task, _Mapping]] = ..., body: _Optional[bytes] = ..., traceparent: _Optional[str] = ..., tracestate: _Optional[str] = ...) -> None: ...

class TaskProgress(_message.Message):
    __slots__ = ("attempts", "failed_count", "lost_count", "alone", "next_attempt_time", "delivery_count")
    ATTEMPTS_FIELD_NUMBER: _ClassVar[int]
    FAILED_COUNT_FIELD_NUMBER: _ClassVar[int]
    LOST_COUNT_FIELD_NUMBER: _ClassVar[int]
    ALONE_FIELD_NUMBER: _ClassVar[int]
    NEXT_ATTEMPT_TIME_FIELD_NUMBER: _ClassVar[int]
    DELIVERY_COUNT_FIELD_NUMBER: _ClassVar[int]
    attempts: _containers.RepeatedCompositeFieldContainer[_task_pb2.TaskAttempt]
    failed_count: int
    lost_count: int
    alone: bool
    next_attempt_time: _timestamp_pb2.Timestamp
    delivery_count: int
    def __init__(self, attempts: _Optional[_Iterable[_Union[_task_pb2.TaskAttempt, _Mapping]]] = ..., failed_count: _Optional[int] = ..., lost_count: _Optional[int] = ..., alone: _Optional[bool] = ..., next_attempt_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., delivery_count: _Optional[int] = ...) -> None: ...

class DeadTask(_message.Message):
    __slots__ = ("task", "envelope")
    TASK_FIELD_NUMBER: _ClassVar[int]
    ENVELOPE_FIELD_NUMBER: _ClassVar[int]
    task: _task_pb2.Task
    envelope: TaskEnvelope
    def __init__(self, task: _Optional[_Union[_task_pb2.Task, _Mapping]] = ..., envelope: _Optional[_Union[TaskEnvelope, _Mapping]] = ...) -> None: ...

class TaskEvent(_message.Message):
    __slots__ = ("task_id", "state", "attempt", "event_time", "replica_id", "error", "next_attempt_time")
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    EVENT_TIME_FIELD_NUMBER: _ClassVar[int]
    REPLICA_ID_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    NEXT_ATTEMPT_TIME_FIELD_NUMBER: _ClassVar[int]
    task_id: str
    state: _task_pb2.Task.State
    attempt: int
    event_time: _timestamp_pb2.Timestamp
    replica_id: str
    error: str
    next_attempt_time: _timestamp_pb2.Timestamp
    def __init__(self, task_id: _Optional[str] = ..., state: _Optional[_Union[_task_pb2.Task.State, str]] = ..., attempt: _Optional[int] = ..., event_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., replica_id: _Optional[str] = ..., error: _Optional[str] = ..., next_attempt_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class CallbackEnvelope(_message.Message):
    __slots__ = ("task_id", "deployment", "task")
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    DEPLOYMENT_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    task_id: str
    deployment: str
    task: _task_pb2.Task
    def __init__(self, task_id: _Optional[str] = ..., deployment: _Optional[str] = ..., task: _Optional[_Union[_task_pb2.Task, _Mapping]] = ...) -> None: ...

class UsageNote(_message.Message):
    __slots__ = ("deployment", "tenant", "batch", "attempt_count", "busy_time", "replica_time", "gpu_time")
    DEPLOYMENT_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    BATCH_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_COUNT_FIELD_NUMBER: _ClassVar[int]
    BUSY_TIME_FIELD_NUMBER: _ClassVar[int]
    REPLICA_TIME_FIELD_NUMBER: _ClassVar[int]
    GPU_TIME_FIELD_NUMBER: _ClassVar[int]
    deployment: str
    tenant: str
    batch: str
    attempt_count: int
    busy_time: _duration_pb2.Duration
    replica_time: _duration_pb2.Duration
    gpu_time: _duration_pb2.Duration
    def __init__(self, deployment: _Optional[str] = ..., tenant: _Optional[str] = ..., batch: _Optional[str] = ..., attempt_count: _Optional[int] = ..., busy_time: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., replica_time: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., gpu_time: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...
