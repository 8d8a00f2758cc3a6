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

class ReplicaRuntime(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    REPLICA_RUNTIME_UNSPECIFIED: _ClassVar[ReplicaRuntime]
    REPLICA_RUNTIME_PROCESS: _ClassVar[ReplicaRuntime]
    REPLICA_RUNTIME_DOCKER: _ClassVar[ReplicaRuntime]
REPLICA_RUNTIME_UNSPECIFIED: ReplicaRuntime
REPLICA_RUNTIME_PROCESS: ReplicaRuntime
REPLICA_RUNTIME_DOCKER: ReplicaRuntime

class Node(_message.Message):
    __slots__ = ("name", "slot_count", "gpus", "replicas", "state", "last_report_time", "applied_revision", "agent_version", "gpu_message", "cpus", "memory_bytes", "custom", "volumes", "read_only_volumes", "runtime", "runtime_message")
    class State(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        STATE_UNSPECIFIED: _ClassVar[Node.State]
        STATE_ACTIVE: _ClassVar[Node.State]
        STATE_DRAINING: _ClassVar[Node.State]
        STATE_OFFLINE: _ClassVar[Node.State]
    STATE_UNSPECIFIED: Node.State
    STATE_ACTIVE: Node.State
    STATE_DRAINING: Node.State
    STATE_OFFLINE: Node.State
    class CustomEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    SLOT_COUNT_FIELD_NUMBER: _ClassVar[int]
    GPUS_FIELD_NUMBER: _ClassVar[int]
    REPLICAS_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    LAST_REPORT_TIME_FIELD_NUMBER: _ClassVar[int]
    APPLIED_REVISION_FIELD_NUMBER: _ClassVar[int]
    AGENT_VERSION_FIELD_NUMBER: _ClassVar[int]
    GPU_MESSAGE_FIELD_NUMBER: _ClassVar[int]
    CPUS_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    CUSTOM_FIELD_NUMBER: _ClassVar[int]
    VOLUMES_FIELD_NUMBER: _ClassVar[int]
    READ_ONLY_VOLUMES_FIELD_NUMBER: _ClassVar[int]
    RUNTIME_FIELD_NUMBER: _ClassVar[int]
    RUNTIME_MESSAGE_FIELD_NUMBER: _ClassVar[int]
    name: str
    slot_count: int
    gpus: _containers.RepeatedCompositeFieldContainer[Gpu]
    replicas: _containers.RepeatedCompositeFieldContainer[ReplicaStatus]
    state: Node.State
    last_report_time: _timestamp_pb2.Timestamp
    applied_revision: int
    agent_version: str
    gpu_message: str
    cpus: float
    memory_bytes: int
    custom: _containers.ScalarMap[str, float]
    volumes: _containers.RepeatedScalarFieldContainer[str]
    read_only_volumes: _containers.RepeatedScalarFieldContainer[str]
    runtime: ReplicaRuntime
    runtime_message: str
    def __init__(self, name: _Optional[str] = ..., slot_count: _Optional[int] = ..., gpus: _Optional[_Iterable[_Union[Gpu, _Mapping]]] = ..., replicas: _Optional[_Iterable[_Union[ReplicaStatus, _Mapping]]] = ..., state: _Optional[_Union[Node.State, str]] = ..., last_report_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., applied_revision: _Optional[int] = ..., agent_version: _Optional[str] = ..., gpu_message: _Optional[str] = ..., cpus: _Optional[float] = ..., memory_bytes: _Optional[int] = ..., custom: _Optional[_Mapping[str, float]] = ..., volumes: _Optional[_Iterable[str]] = ..., read_only_volumes: _Optional[_Iterable[str]] = ..., runtime: _Optional[_Union[ReplicaRuntime, str]] = ..., runtime_message: _Optional[str] = ...) -> None: ...

class Gpu(_message.Message):
    __slots__ = ("uuid", "product_name", "memory_total_bytes", "memory_used_bytes", "utilization_ratio", "simulated", "health", "health_message", "temperature_celsius", "power_watts", "power_limit_watts", "mig_parent_uuid", "ecc_corrected_count", "ecc_uncorrected_count", "xid_counts", "processes")
    class Health(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        HEALTH_UNSPECIFIED: _ClassVar[Gpu.Health]
        HEALTH_OK: _ClassVar[Gpu.Health]
        HEALTH_FAULTY: _ClassVar[Gpu.Health]
        HEALTH_LOST: _ClassVar[Gpu.Health]
    HEALTH_UNSPECIFIED: Gpu.Health
    HEALTH_OK: Gpu.Health
    HEALTH_FAULTY: Gpu.Health
    HEALTH_LOST: Gpu.Health
    class XidCountsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: int
        value: int
        def __init__(self, key: _Optional[int] = ..., value: _Optional[int] = ...) -> None: ...
    UUID_FIELD_NUMBER: _ClassVar[int]
    PRODUCT_NAME_FIELD_NUMBER: _ClassVar[int]
    MEMORY_TOTAL_BYTES_FIELD_NUMBER: _ClassVar[int]
    MEMORY_USED_BYTES_FIELD_NUMBER: _ClassVar[int]
    UTILIZATION_RATIO_FIELD_NUMBER: _ClassVar[int]
    SIMULATED_FIELD_NUMBER: _ClassVar[int]
    HEALTH_FIELD_NUMBER: _ClassVar[int]
    HEALTH_MESSAGE_FIELD_NUMBER: _ClassVar[int]
    TEMPERATURE_CELSIUS_FIELD_NUMBER: _ClassVar[int]
    POWER_WATTS_FIELD_NUMBER: _ClassVar[int]
    POWER_LIMIT_WATTS_FIELD_NUMBER: _ClassVar[int]
    MIG_PARENT_UUID_FIELD_NUMBER: _ClassVar[int]
    ECC_CORRECTED_COUNT_FIELD_NUMBER: _ClassVar[int]
    ECC_UNCORRECTED_COUNT_FIELD_NUMBER: _ClassVar[int]
    XID_COUNTS_FIELD_NUMBER: _ClassVar[int]
    PROCESSES_FIELD_NUMBER: _ClassVar[int]
    uuid: str
    product_name: str
    memory_total_bytes: int
    memory_used_bytes: int
    utilization_ratio: float
    simulated: bool
    health: Gpu.Health
    health_message: str
    temperature_celsius: float
    power_watts: float
    power_limit_watts: float
    mig_parent_uuid: str
    ecc_corrected_count: int
    ecc_uncorrected_count: int
    xid_counts: _containers.ScalarMap[int, int]
    processes: _containers.RepeatedCompositeFieldContainer[GpuProcess]
    def __init__(self, uuid: _Optional[str] = ..., product_name: _Optional[str] = ..., memory_total_bytes: _Optional[int] = ..., memory_used_bytes: _Optional[int] = ..., utilization_ratio: _Optional[float] = ..., simulated: _Optional[bool] = ..., health: _Optional[_Union[Gpu.Health, str]] = ..., health_message: _Optional[str] = ..., temperature_celsius: _Optional[float] = ..., power_watts: _Optional[float] = ..., power_limit_watts: _Optional[float] = ..., mig_parent_uuid: _Optional[str] = ..., ecc_corrected_count: _Optional[int] = ..., ecc_uncorrected_count: _Optional[int] = ..., xid_counts: _Optional[_Mapping[int, int]] = ..., processes: _Optional[_Iterable[_Union[GpuProcess, _Mapping]]] = ...) -> None: ...

class GpuProcess(_message.Message):
    __slots__ = ("process_id", "memory_used_bytes", "replica_id")
    PROCESS_ID_FIELD_NUMBER: _ClassVar[int]
    MEMORY_USED_BYTES_FIELD_NUMBER: _ClassVar[int]
    REPLICA_ID_FIELD_NUMBER: _ClassVar[int]
    process_id: int
    memory_used_bytes: int
    replica_id: str
    def __init__(self, process_id: _Optional[int] = ..., memory_used_bytes: _Optional[int] = ..., replica_id: _Optional[str] = ...) -> None: ...

class ReplicaStatus(_message.Message):
    __slots__ = ("replica_id", "deployment", "generation", "gpu_uuids", "state", "message", "max_ongoing_requests", "ongoing_count", "attempt_counts", "start_count", "startup_time", "queue_wait", "service_time", "resident_memory_bytes", "gpus", "gpu_memory_used_bytes", "image_id")
    class State(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        STATE_UNSPECIFIED: _ClassVar[ReplicaStatus.State]
        STATE_STARTING: _ClassVar[ReplicaStatus.State]
        STATE_READY: _ClassVar[ReplicaStatus.State]
        STATE_DRAINING: _ClassVar[ReplicaStatus.State]
        STATE_STOPPED: _ClassVar[ReplicaStatus.State]
        STATE_FAILED: _ClassVar[ReplicaStatus.State]
    STATE_UNSPECIFIED: ReplicaStatus.State
    STATE_STARTING: ReplicaStatus.State
    STATE_READY: ReplicaStatus.State
    STATE_DRAINING: ReplicaStatus.State
    STATE_STOPPED: ReplicaStatus.State
    STATE_FAILED: ReplicaStatus.State
    class AttemptCountsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    REPLICA_ID_FIELD_NUMBER: _ClassVar[int]
    DEPLOYMENT_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    GPU_UUIDS_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    MAX_ONGOING_REQUESTS_FIELD_NUMBER: _ClassVar[int]
    ONGOING_COUNT_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_COUNTS_FIELD_NUMBER: _ClassVar[int]
    START_COUNT_FIELD_NUMBER: _ClassVar[int]
    STARTUP_TIME_FIELD_NUMBER: _ClassVar[int]
    QUEUE_WAIT_FIELD_NUMBER: _ClassVar[int]
    SERVICE_TIME_FIELD_NUMBER: _ClassVar[int]
    RESIDENT_MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    GPUS_FIELD_NUMBER: _ClassVar[int]
    GPU_MEMORY_USED_BYTES_FIELD_NUMBER: _ClassVar[int]
    IMAGE_ID_FIELD_NUMBER: _ClassVar[int]
    replica_id: str
    deployment: str
    generation: int
    gpu_uuids: _containers.RepeatedScalarFieldContainer[str]
    state: ReplicaStatus.State
    message: str
    max_ongoing_requests: int
    ongoing_count: int
    attempt_counts: _containers.ScalarMap[str, int]
    start_count: int
    startup_time: _duration_pb2.Duration
    queue_wait: Histogram
    service_time: Histogram
    resident_memory_bytes: int
    gpus: float
    gpu_memory_used_bytes: int
    image_id: str
    def __init__(self, replica_id: _Optional[str] = ..., deployment: _Optional[str] = ..., generation: _Optional[int] = ..., gpu_uuids: _Optional[_Iterable[str]] = ..., state: _Optional[_Union[ReplicaStatus.State, str]] = ..., message: _Optional[str] = ..., max_ongoing_requests: _Optional[int] = ..., ongoing_count: _Optional[int] = ..., attempt_counts: _Optional[_Mapping[str, int]] = ..., start_count: _Optional[int] = ..., startup_time: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., queue_wait: _Optional[_Union[Histogram, _Mapping]] = ..., service_time: _Optional[_Union[Histogram, _Mapping]] = ..., resident_memory_bytes: _Optional[int] = ..., gpus: _Optional[float] = ..., gpu_memory_used_bytes: _Optional[int] = ..., image_id: _Optional[str] = ...) -> None: ...

class Histogram(_message.Message):
    __slots__ = ("bounds_s", "counts", "sum_s", "exemplars")
    class Exemplar(_message.Message):
        __slots__ = ("bucket", "value_s", "trace_id", "observe_time")
        BUCKET_FIELD_NUMBER: _ClassVar[int]
        VALUE_S_FIELD_NUMBER: _ClassVar[int]
        TRACE_ID_FIELD_NUMBER: _ClassVar[int]
        OBSERVE_TIME_FIELD_NUMBER: _ClassVar[int]
        bucket: int
        value_s: float
        trace_id: str
        observe_time: _timestamp_pb2.Timestamp
        def __init__(self, bucket: _Optional[int] = ..., value_s: _Optional[float] = ..., trace_id: _Optional[str] = ..., observe_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...
    BOUNDS_S_FIELD_NUMBER: _ClassVar[int]
    COUNTS_FIELD_NUMBER: _ClassVar[int]
    SUM_S_FIELD_NUMBER: _ClassVar[int]
    EXEMPLARS_FIELD_NUMBER: _ClassVar[int]
    bounds_s: _containers.RepeatedScalarFieldContainer[float]
    counts: _containers.RepeatedScalarFieldContainer[int]
    sum_s: float
    exemplars: _containers.RepeatedCompositeFieldContainer[Histogram.Exemplar]
    def __init__(self, bounds_s: _Optional[_Iterable[float]] = ..., counts: _Optional[_Iterable[int]] = ..., sum_s: _Optional[float] = ..., exemplars: _Optional[_Iterable[_Union[Histogram.Exemplar, _Mapping]]] = ...) -> None: ...

class ReportRequest(_message.Message):
    __slots__ = ("registration", "report")
    REGISTRATION_FIELD_NUMBER: _ClassVar[int]
    REPORT_FIELD_NUMBER: _ClassVar[int]
    registration: NodeRegistration
    report: NodeReport
    def __init__(self, registration: _Optional[_Union[NodeRegistration, _Mapping]] = ..., report: _Optional[_Union[NodeReport, _Mapping]] = ...) -> None: ...

class NodeRegistration(_message.Message):
    __slots__ = ("node", "instance_id", "agent_version")
    NODE_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_ID_FIELD_NUMBER: _ClassVar[int]
    AGENT_VERSION_FIELD_NUMBER: _ClassVar[int]
    node: str
    instance_id: str
    agent_version: str
    def __init__(self, node: _Optional[str] = ..., instance_id: _Optional[str] = ..., agent_version: _Optional[str] = ...) -> None: ...

class NodeReport(_message.Message):
    __slots__ = ("sequence_number", "sample_time", "slot_count", "gpus", "replicas", "applied_revision", "draining", "gpu_message", "cpus", "memory_bytes", "custom", "volumes", "read_only_volumes", "runtime", "runtime_message")
    class CustomEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    SEQUENCE_NUMBER_FIELD_NUMBER: _ClassVar[int]
    SAMPLE_TIME_FIELD_NUMBER: _ClassVar[int]
    SLOT_COUNT_FIELD_NUMBER: _ClassVar[int]
    GPUS_FIELD_NUMBER: _ClassVar[int]
    REPLICAS_FIELD_NUMBER: _ClassVar[int]
    APPLIED_REVISION_FIELD_NUMBER: _ClassVar[int]
    DRAINING_FIELD_NUMBER: _ClassVar[int]
    GPU_MESSAGE_FIELD_NUMBER: _ClassVar[int]
    CPUS_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    CUSTOM_FIELD_NUMBER: _ClassVar[int]
    VOLUMES_FIELD_NUMBER: _ClassVar[int]
    READ_ONLY_VOLUMES_FIELD_NUMBER: _ClassVar[int]
    RUNTIME_FIELD_NUMBER: _ClassVar[int]
    RUNTIME_MESSAGE_FIELD_NUMBER: _ClassVar[int]
    sequence_number: int
    sample_time: _timestamp_pb2.Timestamp
    slot_count: int
    gpus: _containers.RepeatedCompositeFieldContainer[Gpu]
    replicas: _containers.RepeatedCompositeFieldContainer[ReplicaStatus]
    applied_revision: int
    draining: bool
    gpu_message: str
    cpus: float
    memory_bytes: int
    custom: _containers.ScalarMap[str, float]
    volumes: _containers.RepeatedScalarFieldContainer[str]
    read_only_volumes: _containers.RepeatedScalarFieldContainer[str]
    runtime: ReplicaRuntime
    runtime_message: str
    def __init__(self, sequence_number: _Optional[int] = ..., sample_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., slot_count: _Optional[int] = ..., gpus: _Optional[_Iterable[_Union[Gpu, _Mapping]]] = ..., replicas: _Optional[_Iterable[_Union[ReplicaStatus, _Mapping]]] = ..., applied_revision: _Optional[int] = ..., draining: _Optional[bool] = ..., gpu_message: _Optional[str] = ..., cpus: _Optional[float] = ..., memory_bytes: _Optional[int] = ..., custom: _Optional[_Mapping[str, float]] = ..., volumes: _Optional[_Iterable[str]] = ..., read_only_volumes: _Optional[_Iterable[str]] = ..., runtime: _Optional[_Union[ReplicaRuntime, str]] = ..., runtime_message: _Optional[str] = ...) -> None: ...

class ReportResponse(_message.Message):
    __slots__ = ("report_interval", "acknowledged_sequence_number")
    REPORT_INTERVAL_FIELD_NUMBER: _ClassVar[int]
    ACKNOWLEDGED_SEQUENCE_NUMBER_FIELD_NUMBER: _ClassVar[int]
    report_interval: _duration_pb2.Duration
    acknowledged_sequence_number: int
    def __init__(self, report_interval: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., acknowledged_sequence_number: _Optional[int] = ...) -> None: ...

class GetNodeRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class GetNodeResponse(_message.Message):
    __slots__ = ("node",)
    NODE_FIELD_NUMBER: _ClassVar[int]
    node: Node
    def __init__(self, node: _Optional[_Union[Node, _Mapping]] = ...) -> None: ...

class ListNodesRequest(_message.Message):
    __slots__ = ("page_size", "page_token")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListNodesResponse(_message.Message):
    __slots__ = ("nodes", "next_page_token")
    NODES_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    nodes: _containers.RepeatedCompositeFieldContainer[Node]
    next_page_token: str
    def __init__(self, nodes: _Optional[_Iterable[_Union[Node, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class ReadReplicaLogRequest(_message.Message):
    __slots__ = ("replica_id", "tail_lines", "follow", "offset_bytes")
    REPLICA_ID_FIELD_NUMBER: _ClassVar[int]
    TAIL_LINES_FIELD_NUMBER: _ClassVar[int]
    FOLLOW_FIELD_NUMBER: _ClassVar[int]
    OFFSET_BYTES_FIELD_NUMBER: _ClassVar[int]
    replica_id: str
    tail_lines: int
    follow: bool
    offset_bytes: int
    def __init__(self, replica_id: _Optional[str] = ..., tail_lines: _Optional[int] = ..., follow: _Optional[bool] = ..., offset_bytes: _Optional[int] = ...) -> None: ...

class ReadReplicaLogResponse(_message.Message):
    __slots__ = ("text", "next_offset_bytes", "error")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    NEXT_OFFSET_BYTES_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    text: str
    next_offset_bytes: int
    error: str
    def __init__(self, text: _Optional[str] = ..., next_offset_bytes: _Optional[int] = ..., error: _Optional[str] = ...) -> None: ...
