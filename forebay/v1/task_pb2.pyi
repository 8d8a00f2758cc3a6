import datetime

from forebay.v1 import envelope_pb2 as _envelope_pb2
from forebay.v1 import inference_pb2 as _inference_pb2
from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Task(_message.Message):
    __slots__ = ("name", "state", "priority", "batch", "batch_index", "labels", "max_retries", "min_backoff", "max_backoff", "attempt_timeout", "ttl", "result_ttl", "callback_url", "idempotency_key", "tenant", "create_time", "start_time", "end_time", "expire_time", "next_attempt_time", "attempts", "attempt_count", "outcome", "error", "trace_id", "retry_of", "result_size_bytes", "result", "content_digest")
    class State(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        STATE_UNSPECIFIED: _ClassVar[Task.State]
        STATE_QUEUED: _ClassVar[Task.State]
        STATE_RUNNING: _ClassVar[Task.State]
        STATE_SUCCEEDED: _ClassVar[Task.State]
        STATE_FAILED: _ClassVar[Task.State]
        STATE_CANCELLED: _ClassVar[Task.State]
        STATE_EXPIRED: _ClassVar[Task.State]
    STATE_UNSPECIFIED: Task.State
    STATE_QUEUED: Task.State
    STATE_RUNNING: Task.State
    STATE_SUCCEEDED: Task.State
    STATE_FAILED: Task.State
    STATE_CANCELLED: Task.State
    STATE_EXPIRED: Task.State
    class Priority(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        PRIORITY_UNSPECIFIED: _ClassVar[Task.Priority]
        PRIORITY_HIGH: _ClassVar[Task.Priority]
        PRIORITY_NORMAL: _ClassVar[Task.Priority]
        PRIORITY_LOW: _ClassVar[Task.Priority]
    PRIORITY_UNSPECIFIED: Task.Priority
    PRIORITY_HIGH: Task.Priority
    PRIORITY_NORMAL: Task.Priority
    PRIORITY_LOW: Task.Priority
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    BATCH_FIELD_NUMBER: _ClassVar[int]
    BATCH_INDEX_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    MAX_RETRIES_FIELD_NUMBER: _ClassVar[int]
    MIN_BACKOFF_FIELD_NUMBER: _ClassVar[int]
    MAX_BACKOFF_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    TTL_FIELD_NUMBER: _ClassVar[int]
    RESULT_TTL_FIELD_NUMBER: _ClassVar[int]
    CALLBACK_URL_FIELD_NUMBER: _ClassVar[int]
    IDEMPOTENCY_KEY_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    START_TIME_FIELD_NUMBER: _ClassVar[int]
    END_TIME_FIELD_NUMBER: _ClassVar[int]
    EXPIRE_TIME_FIELD_NUMBER: _ClassVar[int]
    NEXT_ATTEMPT_TIME_FIELD_NUMBER: _ClassVar[int]
    ATTEMPTS_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_COUNT_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    TRACE_ID_FIELD_NUMBER: _ClassVar[int]
    RETRY_OF_FIELD_NUMBER: _ClassVar[int]
    RESULT_SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    CONTENT_DIGEST_FIELD_NUMBER: _ClassVar[int]
    name: str
    state: Task.State
    priority: Task.Priority
    batch: str
    batch_index: int
    labels: _containers.ScalarMap[str, str]
    max_retries: int
    min_backoff: _duration_pb2.Duration
    max_backoff: _duration_pb2.Duration
    attempt_timeout: _duration_pb2.Duration
    ttl: _duration_pb2.Duration
    result_ttl: _duration_pb2.Duration
    callback_url: str
    idempotency_key: str
    tenant: str
    create_time: _timestamp_pb2.Timestamp
    start_time: _timestamp_pb2.Timestamp
    end_time: _timestamp_pb2.Timestamp
    expire_time: _timestamp_pb2.Timestamp
    next_attempt_time: _timestamp_pb2.Timestamp
    attempts: _containers.RepeatedCompositeFieldContainer[TaskAttempt]
    attempt_count: int
    outcome: _envelope_pb2.Outcome
    error: str
    trace_id: str
    retry_of: str
    result_size_bytes: int
    result: _inference_pb2.InferResponse
    content_digest: bytes
    def __init__(self, name: _Optional[str] = ..., state: _Optional[_Union[Task.State, str]] = ..., priority: _Optional[_Union[Task.Priority, str]] = ..., batch: _Optional[str] = ..., batch_index: _Optional[int] = ..., labels: _Optional[_Mapping[str, str]] = ..., max_retries: _Optional[int] = ..., min_backoff: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., max_backoff: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., attempt_timeout: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., ttl: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., result_ttl: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., callback_url: _Optional[str] = ..., idempotency_key: _Optional[str] = ..., tenant: _Optional[str] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., start_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., end_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., expire_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., next_attempt_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., attempts: _Optional[_Iterable[_Union[TaskAttempt, _Mapping]]] = ..., attempt_count: _Optional[int] = ..., outcome: _Optional[_Union[_envelope_pb2.Outcome, str]] = ..., error: _Optional[str] = ..., trace_id: _Optional[str] = ..., retry_of: _Optional[str] = ..., result_size_bytes: _Optional[int] = ..., result: _Optional[_Union[_inference_pb2.InferResponse, _Mapping]] = ..., content_digest: _Optional[bytes] = ...) -> None: ...

class TaskAttempt(_message.Message):
    __slots__ = ("start_time", "end_time", "replica_id", "node", "outcome", "error")
    START_TIME_FIELD_NUMBER: _ClassVar[int]
    END_TIME_FIELD_NUMBER: _ClassVar[int]
    REPLICA_ID_FIELD_NUMBER: _ClassVar[int]
    NODE_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    start_time: _timestamp_pb2.Timestamp
    end_time: _timestamp_pb2.Timestamp
    replica_id: str
    node: str
    outcome: _envelope_pb2.Outcome
    error: str
    def __init__(self, start_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., end_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., replica_id: _Optional[str] = ..., node: _Optional[str] = ..., outcome: _Optional[_Union[_envelope_pb2.Outcome, str]] = ..., error: _Optional[str] = ...) -> None: ...

class SubmitTaskRequest(_message.Message):
    __slots__ = ("request", "task")
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    request: _inference_pb2.InferRequest
    task: Task
    def __init__(self, request: _Optional[_Union[_inference_pb2.InferRequest, _Mapping]] = ..., task: _Optional[_Union[Task, _Mapping]] = ...) -> None: ...

class SubmitTaskResponse(_message.Message):
    __slots__ = ("task",)
    TASK_FIELD_NUMBER: _ClassVar[int]
    task: Task
    def __init__(self, task: _Optional[_Union[Task, _Mapping]] = ...) -> None: ...

class SubmitTasksRequest(_message.Message):
    __slots__ = ("tasks",)
    TASKS_FIELD_NUMBER: _ClassVar[int]
    tasks: _containers.RepeatedCompositeFieldContainer[SubmitTaskRequest]
    def __init__(self, tasks: _Optional[_Iterable[_Union[SubmitTaskRequest, _Mapping]]] = ...) -> None: ...

class SubmitTasksResponse(_message.Message):
    __slots__ = ("submitted",)
    class Submitted(_message.Message):
        __slots__ = ("index", "name", "outcome", "message")
        INDEX_FIELD_NUMBER: _ClassVar[int]
        NAME_FIELD_NUMBER: _ClassVar[int]
        OUTCOME_FIELD_NUMBER: _ClassVar[int]
        MESSAGE_FIELD_NUMBER: _ClassVar[int]
        index: int
        name: str
        outcome: _envelope_pb2.Outcome
        message: str
        def __init__(self, index: _Optional[int] = ..., name: _Optional[str] = ..., outcome: _Optional[_Union[_envelope_pb2.Outcome, str]] = ..., message: _Optional[str] = ...) -> None: ...
    SUBMITTED_FIELD_NUMBER: _ClassVar[int]
    submitted: _containers.RepeatedCompositeFieldContainer[SubmitTasksResponse.Submitted]
    def __init__(self, submitted: _Optional[_Iterable[_Union[SubmitTasksResponse.Submitted, _Mapping]]] = ...) -> None: ...

class GetTaskRequest(_message.Message):
    __slots__ = ("name", "omit_result")
    NAME_FIELD_NUMBER: _ClassVar[int]
    OMIT_RESULT_FIELD_NUMBER: _ClassVar[int]
    name: str
    omit_result: bool
    def __init__(self, name: _Optional[str] = ..., omit_result: _Optional[bool] = ...) -> None: ...

class GetTaskResponse(_message.Message):
    __slots__ = ("task",)
    TASK_FIELD_NUMBER: _ClassVar[int]
    task: Task
    def __init__(self, task: _Optional[_Union[Task, _Mapping]] = ...) -> None: ...

class WaitTaskRequest(_message.Message):
    __slots__ = ("name", "omit_result")
    NAME_FIELD_NUMBER: _ClassVar[int]
    OMIT_RESULT_FIELD_NUMBER: _ClassVar[int]
    name: str
    omit_result: bool
    def __init__(self, name: _Optional[str] = ..., omit_result: _Optional[bool] = ...) -> None: ...

class WaitTaskResponse(_message.Message):
    __slots__ = ("task",)
    TASK_FIELD_NUMBER: _ClassVar[int]
    task: Task
    def __init__(self, task: _Optional[_Union[Task, _Mapping]] = ...) -> None: ...

class WatchTasksRequest(_message.Message):
    __slots__ = ("parent", "batch", "omit_results", "after_position", "until_now")
    PARENT_FIELD_NUMBER: _ClassVar[int]
    BATCH_FIELD_NUMBER: _ClassVar[int]
    OMIT_RESULTS_FIELD_NUMBER: _ClassVar[int]
    AFTER_POSITION_FIELD_NUMBER: _ClassVar[int]
    UNTIL_NOW_FIELD_NUMBER: _ClassVar[int]
    parent: str
    batch: str
    omit_results: bool
    after_position: int
    until_now: bool
    def __init__(self, parent: _Optional[str] = ..., batch: _Optional[str] = ..., omit_results: _Optional[bool] = ..., after_position: _Optional[int] = ..., until_now: _Optional[bool] = ...) -> None: ...

class WatchTasksResponse(_message.Message):
    __slots__ = ("tasks", "position", "caught_up")
    TASKS_FIELD_NUMBER: _ClassVar[int]
    POSITION_FIELD_NUMBER: _ClassVar[int]
    CAUGHT_UP_FIELD_NUMBER: _ClassVar[int]
    tasks: _containers.RepeatedCompositeFieldContainer[Task]
    position: int
    caught_up: bool
    def __init__(self, tasks: _Optional[_Iterable[_Union[Task, _Mapping]]] = ..., position: _Optional[int] = ..., caught_up: _Optional[bool] = ...) -> None: ...

class ListTasksRequest(_message.Message):
    __slots__ = ("parent", "page_size", "page_token", "states", "batch", "labels")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    PARENT_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    STATES_FIELD_NUMBER: _ClassVar[int]
    BATCH_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    parent: str
    page_size: int
    page_token: str
    states: _containers.RepeatedScalarFieldContainer[Task.State]
    batch: str
    labels: _containers.ScalarMap[str, str]
    def __init__(self, parent: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., states: _Optional[_Iterable[_Union[Task.State, str]]] = ..., batch: _Optional[str] = ..., labels: _Optional[_Mapping[str, str]] = ...) -> None: ...

class ListTasksResponse(_message.Message):
    __slots__ = ("tasks", "next_page_token")
    TASKS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    tasks: _containers.RepeatedCompositeFieldContainer[Task]
    next_page_token: str
    def __init__(self, tasks: _Optional[_Iterable[_Union[Task, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class CancelTaskRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class CancelTaskResponse(_message.Message):
    __slots__ = ("task",)
    TASK_FIELD_NUMBER: _ClassVar[int]
    task: Task
    def __init__(self, task: _Optional[_Union[Task, _Mapping]] = ...) -> None: ...

class RetryTaskRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class RetryTaskResponse(_message.Message):
    __slots__ = ("task",)
    TASK_FIELD_NUMBER: _ClassVar[int]
    task: Task
    def __init__(self, task: _Optional[_Union[Task, _Mapping]] = ...) -> None: ...

class PurgeTasksRequest(_message.Message):
    __slots__ = ("parent", "states", "batch", "validate_only")
    PARENT_FIELD_NUMBER: _ClassVar[int]
    STATES_FIELD_NUMBER: _ClassVar[int]
    BATCH_FIELD_NUMBER: _ClassVar[int]
    VALIDATE_ONLY_FIELD_NUMBER: _ClassVar[int]
    parent: str
    states: _containers.RepeatedScalarFieldContainer[Task.State]
    batch: str
    validate_only: bool
    def __init__(self, parent: _Optional[str] = ..., states: _Optional[_Iterable[_Union[Task.State, str]]] = ..., batch: _Optional[str] = ..., validate_only: _Optional[bool] = ...) -> None: ...

class PurgeTasksResponse(_message.Message):
    __slots__ = ("purged_count",)
    PURGED_COUNT_FIELD_NUMBER: _ClassVar[int]
    purged_count: int
    def __init__(self, purged_count: _Optional[int] = ...) -> None: ...
