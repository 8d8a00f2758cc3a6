from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Outcome(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    OUTCOME_UNSPECIFIED: _ClassVar[Outcome]
    OUTCOME_OK: _ClassVar[Outcome]
    OUTCOME_DEADLINE_EXCEEDED: _ClassVar[Outcome]
    OUTCOME_CANCELLED: _ClassVar[Outcome]
    OUTCOME_NOT_FOUND: _ClassVar[Outcome]
    OUTCOME_INVALID_ARGUMENT: _ClassVar[Outcome]
    OUTCOME_RESOURCE_EXHAUSTED: _ClassVar[Outcome]
    OUTCOME_UNAVAILABLE: _ClassVar[Outcome]
    OUTCOME_ABORTED: _ClassVar[Outcome]
    OUTCOME_INTERNAL: _ClassVar[Outcome]
OUTCOME_UNSPECIFIED: Outcome
OUTCOME_OK: Outcome
OUTCOME_DEADLINE_EXCEEDED: Outcome
OUTCOME_CANCELLED: Outcome
OUTCOME_NOT_FOUND: Outcome
OUTCOME_INVALID_ARGUMENT: Outcome
OUTCOME_RESOURCE_EXHAUSTED: Outcome
OUTCOME_UNAVAILABLE: Outcome
OUTCOME_ABORTED: Outcome
OUTCOME_INTERNAL: Outcome

class RequestEnvelope(_message.Message):
    __slots__ = ("request_id", "reply_subject", "remaining_ms", "traceparent", "tracestate", "keep_reply", "body", "claim")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    REPLY_SUBJECT_FIELD_NUMBER: _ClassVar[int]
    REMAINING_MS_FIELD_NUMBER: _ClassVar[int]
    TRACEPARENT_FIELD_NUMBER: _ClassVar[int]
    TRACESTATE_FIELD_NUMBER: _ClassVar[int]
    KEEP_REPLY_FIELD_NUMBER: _ClassVar[int]
    BODY_FIELD_NUMBER: _ClassVar[int]
    CLAIM_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    reply_subject: str
    remaining_ms: int
    traceparent: str
    tracestate: str
    keep_reply: bool
    body: bytes
    claim: BodyClaim
    def __init__(self, request_id: _Optional[str] = ..., reply_subject: _Optional[str] = ..., remaining_ms: _Optional[int] = ..., traceparent: _Optional[str] = ..., tracestate: _Optional[str] = ..., keep_reply: _Optional[bool] = ..., body: _Optional[bytes] = ..., claim: _Optional[_Union[BodyClaim, _Mapping]] = ...) -> None: ...

class BodyClaim(_message.Message):
    __slots__ = ("head", "arena", "arena_size_bytes", "offset_bytes", "length_bytes", "raw_offset_bytes", "raw_length_bytes", "fetch_subject")
    HEAD_FIELD_NUMBER: _ClassVar[int]
    ARENA_FIELD_NUMBER: _ClassVar[int]
    ARENA_SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    OFFSET_BYTES_FIELD_NUMBER: _ClassVar[int]
    LENGTH_BYTES_FIELD_NUMBER: _ClassVar[int]
    RAW_OFFSET_BYTES_FIELD_NUMBER: _ClassVar[int]
    RAW_LENGTH_BYTES_FIELD_NUMBER: _ClassVar[int]
    FETCH_SUBJECT_FIELD_NUMBER: _ClassVar[int]
    head: bytes
    arena: str
    arena_size_bytes: int
    offset_bytes: int
    length_bytes: int
    raw_offset_bytes: _containers.RepeatedScalarFieldContainer[int]
    raw_length_bytes: _containers.RepeatedScalarFieldContainer[int]
    fetch_subject: str
    def __init__(self, head: _Optional[bytes] = ..., arena: _Optional[str] = ..., arena_size_bytes: _Optional[int] = ..., offset_bytes: _Optional[int] = ..., length_bytes: _Optional[int] = ..., raw_offset_bytes: _Optional[_Iterable[int]] = ..., raw_length_bytes: _Optional[_Iterable[int]] = ..., fetch_subject: _Optional[str] = ...) -> None: ...

class ReplyEnvelope(_message.Message):
    __slots__ = ("request_id", "index", "final", "outcome", "message", "node", "replica_id", "attempt_count", "queue_wait_us", "service_time_us", "body")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    FINAL_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    NODE_FIELD_NUMBER: _ClassVar[int]
    REPLICA_ID_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_COUNT_FIELD_NUMBER: _ClassVar[int]
    QUEUE_WAIT_US_FIELD_NUMBER: _ClassVar[int]
    SERVICE_TIME_US_FIELD_NUMBER: _ClassVar[int]
    BODY_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    index: int
    final: bool
    outcome: Outcome
    message: str
    node: str
    replica_id: str
    attempt_count: int
    queue_wait_us: int
    service_time_us: int
    body: bytes
    def __init__(self, request_id: _Optional[str] = ..., index: _Optional[int] = ..., final: _Optional[bool] = ..., outcome: _Optional[_Union[Outcome, str]] = ..., message: _Optional[str] = ..., node: _Optional[str] = ..., replica_id: _Optional[str] = ..., attempt_count: _Optional[int] = ..., queue_wait_us: _Optional[int] = ..., service_time_us: _Optional[int] = ..., body: _Optional[bytes] = ...) -> None: ...
