import datetime

from forebay.v1 import inference_pb2 as _inference_pb2
from forebay.v1 import task_pb2 as _task_pb2
from google.protobuf import field_mask_pb2 as _field_mask_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Schedule(_message.Message):
    __slots__ = ("name", "when", "timezone", "request", "task", "missed_policy", "overlap_policy", "paused", "next_time", "runs", "create_time", "update_time", "etag", "tenant")
    class MissedPolicy(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        MISSED_POLICY_UNSPECIFIED: _ClassVar[Schedule.MissedPolicy]
        MISSED_POLICY_SKIP: _ClassVar[Schedule.MissedPolicy]
        MISSED_POLICY_RUN_ONCE: _ClassVar[Schedule.MissedPolicy]
    MISSED_POLICY_UNSPECIFIED: Schedule.MissedPolicy
    MISSED_POLICY_SKIP: Schedule.MissedPolicy
    MISSED_POLICY_RUN_ONCE: Schedule.MissedPolicy
    class OverlapPolicy(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        OVERLAP_POLICY_UNSPECIFIED: _ClassVar[Schedule.OverlapPolicy]
        OVERLAP_POLICY_SKIP: _ClassVar[Schedule.OverlapPolicy]
        OVERLAP_POLICY_ALLOW: _ClassVar[Schedule.OverlapPolicy]
        OVERLAP_POLICY_REPLACE: _ClassVar[Schedule.OverlapPolicy]
    OVERLAP_POLICY_UNSPECIFIED: Schedule.OverlapPolicy
    OVERLAP_POLICY_SKIP: Schedule.OverlapPolicy
    OVERLAP_POLICY_ALLOW: Schedule.OverlapPolicy
    OVERLAP_POLICY_REPLACE: Schedule.OverlapPolicy
    NAME_FIELD_NUMBER: _ClassVar[int]
    WHEN_FIELD_NUMBER: _ClassVar[int]
    TIMEZONE_FIELD_NUMBER: _ClassVar[int]
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    MISSED_POLICY_FIELD_NUMBER: _ClassVar[int]
    OVERLAP_POLICY_FIELD_NUMBER: _ClassVar[int]
    PAUSED_FIELD_NUMBER: _ClassVar[int]
    NEXT_TIME_FIELD_NUMBER: _ClassVar[int]
    RUNS_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    UPDATE_TIME_FIELD_NUMBER: _ClassVar[int]
    ETAG_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    name: str
    when: str
    timezone: str
    request: _inference_pb2.InferRequest
    task: _task_pb2.Task
    missed_policy: Schedule.MissedPolicy
    overlap_policy: Schedule.OverlapPolicy
    paused: bool
    next_time: _timestamp_pb2.Timestamp
    runs: _containers.RepeatedCompositeFieldContainer[ScheduleRun]
    create_time: _timestamp_pb2.Timestamp
    update_time: _timestamp_pb2.Timestamp
    etag: str
    tenant: str
    def __init__(self, name: _Optional[str] = ..., when: _Optional[str] = ..., timezone: _Optional[str] = ..., request: _Optional[_Union[_inference_pb2.InferRequest, _Mapping]] = ..., task: _Optional[_Union[_task_pb2.Task, _Mapping]] = ..., missed_policy: _Optional[_Union[Schedule.MissedPolicy, str]] = ..., overlap_policy: _Optional[_Union[Schedule.OverlapPolicy, str]] = ..., paused: _Optional[bool] = ..., next_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., runs: _Optional[_Iterable[_Union[ScheduleRun, _Mapping]]] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., update_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., etag: _Optional[str] = ..., tenant: _Optional[str] = ...) -> None: ...

class ScheduleRun(_message.Message):
    __slots__ = ("slot_time", "fire_time", "action", "task", "message")
    class Action(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        ACTION_UNSPECIFIED: _ClassVar[ScheduleRun.Action]
        ACTION_SUBMITTED: _ClassVar[ScheduleRun.Action]
        ACTION_SKIPPED_OVERLAP: _ClassVar[ScheduleRun.Action]
        ACTION_SKIPPED_MISSED: _ClassVar[ScheduleRun.Action]
        ACTION_FAILED: _ClassVar[ScheduleRun.Action]
    ACTION_UNSPECIFIED: ScheduleRun.Action
    ACTION_SUBMITTED: ScheduleRun.Action
    ACTION_SKIPPED_OVERLAP: ScheduleRun.Action
    ACTION_SKIPPED_MISSED: ScheduleRun.Action
    ACTION_FAILED: ScheduleRun.Action
    SLOT_TIME_FIELD_NUMBER: _ClassVar[int]
    FIRE_TIME_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    slot_time: _timestamp_pb2.Timestamp
    fire_time: _timestamp_pb2.Timestamp
    action: ScheduleRun.Action
    task: str
    message: str
    def __init__(self, slot_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., fire_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., action: _Optional[_Union[ScheduleRun.Action, str]] = ..., task: _Optional[str] = ..., message: _Optional[str] = ...) -> None: ...

class CreateScheduleRequest(_message.Message):
    __slots__ = ("schedule_id", "schedule", "validate_only")
    SCHEDULE_ID_FIELD_NUMBER: _ClassVar[int]
    SCHEDULE_FIELD_NUMBER: _ClassVar[int]
    VALIDATE_ONLY_FIELD_NUMBER: _ClassVar[int]
    schedule_id: str
    schedule: Schedule
    validate_only: bool
    def __init__(self, schedule_id: _Optional[str] = ..., schedule: _Optional[_Union[Schedule, _Mapping]] = ..., validate_only: _Optional[bool] = ...) -> None: ...

class CreateScheduleResponse(_message.Message):
    __slots__ = ("schedule",)
    SCHEDULE_FIELD_NUMBER: _ClassVar[int]
    schedule: Schedule
    def __init__(self, schedule: _Optional[_Union[Schedule, _Mapping]] = ...) -> None: ...

class GetScheduleRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class GetScheduleResponse(_message.Message):
    __slots__ = ("schedule",)
    SCHEDULE_FIELD_NUMBER: _ClassVar[int]
    schedule: Schedule
    def __init__(self, schedule: _Optional[_Union[Schedule, _Mapping]] = ...) -> None: ...

class ListSchedulesRequest(_message.Message):
    __slots__ = ("page_size", "page_token")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListSchedulesResponse(_message.Message):
    __slots__ = ("schedules", "next_page_token")
    SCHEDULES_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    schedules: _containers.RepeatedCompositeFieldContainer[Schedule]
    next_page_token: str
    def __init__(self, schedules: _Optional[_Iterable[_Union[Schedule, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class UpdateScheduleRequest(_message.Message):
    __slots__ = ("schedule", "update_mask")
    SCHEDULE_FIELD_NUMBER: _ClassVar[int]
    UPDATE_MASK_FIELD_NUMBER: _ClassVar[int]
    schedule: Schedule
    update_mask: _field_mask_pb2.FieldMask
    def __init__(self, schedule: _Optional[_Union[Schedule, _Mapping]] = ..., update_mask: _Optional[_Union[_field_mask_pb2.FieldMask, _Mapping]] = ...) -> None: ...

class UpdateScheduleResponse(_message.Message):
    __slots__ = ("schedule",)
    SCHEDULE_FIELD_NUMBER: _ClassVar[int]
    schedule: Schedule
    def __init__(self, schedule: _Optional[_Union[Schedule, _Mapping]] = ...) -> None: ...

class DeleteScheduleRequest(_message.Message):
    __slots__ = ("name", "etag")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ETAG_FIELD_NUMBER: _ClassVar[int]
    name: str
    etag: str
    def __init__(self, name: _Optional[str] = ..., etag: _Optional[str] = ...) -> None: ...

class DeleteScheduleResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class RunScheduleRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class RunScheduleResponse(_message.Message):
    __slots__ = ("run",)
    RUN_FIELD_NUMBER: _ClassVar[int]
    run: ScheduleRun
    def __init__(self, run: _Optional[_Union[ScheduleRun, _Mapping]] = ...) -> None: ...
