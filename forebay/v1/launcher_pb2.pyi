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

class ReplicaContainer(_message.Message):
    __slots__ = ("replica_id", "container_id", "state", "address", "exit_code", "out_of_memory", "message", "image_id", "memory_used_bytes", "process_ids")
    class State(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        STATE_UNSPECIFIED: _ClassVar[ReplicaContainer.State]
        STATE_CREATED: _ClassVar[ReplicaContainer.State]
        STATE_RUNNING: _ClassVar[ReplicaContainer.State]
        STATE_PAUSED: _ClassVar[ReplicaContainer.State]
        STATE_EXITED: _ClassVar[ReplicaContainer.State]
        STATE_GONE: _ClassVar[ReplicaContainer.State]
        STATE_UNKNOWN: _ClassVar[ReplicaContainer.State]
    STATE_UNSPECIFIED: ReplicaContainer.State
    STATE_CREATED: ReplicaContainer.State
    STATE_RUNNING: ReplicaContainer.State
    STATE_PAUSED: ReplicaContainer.State
    STATE_EXITED: ReplicaContainer.State
    STATE_GONE: ReplicaContainer.State
    STATE_UNKNOWN: ReplicaContainer.State
    REPLICA_ID_FIELD_NUMBER: _ClassVar[int]
    CONTAINER_ID_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    EXIT_CODE_FIELD_NUMBER: _ClassVar[int]
    OUT_OF_MEMORY_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    IMAGE_ID_FIELD_NUMBER: _ClassVar[int]
    MEMORY_USED_BYTES_FIELD_NUMBER: _ClassVar[int]
    PROCESS_IDS_FIELD_NUMBER: _ClassVar[int]
    replica_id: str
    container_id: str
    state: ReplicaContainer.State
    address: str
    exit_code: int
    out_of_memory: bool
    message: str
    image_id: str
    memory_used_bytes: int
    process_ids: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, replica_id: _Optional[str] = ..., container_id: _Optional[str] = ..., state: _Optional[_Union[ReplicaContainer.State, str]] = ..., address: _Optional[str] = ..., exit_code: _Optional[int] = ..., out_of_memory: _Optional[bool] = ..., message: _Optional[str] = ..., image_id: _Optional[str] = ..., memory_used_bytes: _Optional[int] = ..., process_ids: _Optional[_Iterable[int]] = ...) -> None: ...

class GetLauncherRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetLauncherResponse(_message.Message):
    __slots__ = ("node", "usable", "message", "default_image", "engine_version")
    NODE_FIELD_NUMBER: _ClassVar[int]
    USABLE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_IMAGE_FIELD_NUMBER: _ClassVar[int]
    ENGINE_VERSION_FIELD_NUMBER: _ClassVar[int]
    node: str
    usable: bool
    message: str
    default_image: str
    engine_version: str
    def __init__(self, node: _Optional[str] = ..., usable: _Optional[bool] = ..., message: _Optional[str] = ..., default_image: _Optional[str] = ..., engine_version: _Optional[str] = ...) -> None: ...

class PrepareImageRequest(_message.Message):
    __slots__ = ("image",)
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    image: str
    def __init__(self, image: _Optional[str] = ...) -> None: ...

class PrepareImageResponse(_message.Message):
    __slots__ = ("progress", "image_id")
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    IMAGE_ID_FIELD_NUMBER: _ClassVar[int]
    progress: str
    image_id: str
    def __init__(self, progress: _Optional[str] = ..., image_id: _Optional[str] = ...) -> None: ...

class PrepareEnvironmentRequest(_message.Message):
    __slots__ = ("image_id", "requirements")
    IMAGE_ID_FIELD_NUMBER: _ClassVar[int]
    REQUIREMENTS_FIELD_NUMBER: _ClassVar[int]
    image_id: str
    requirements: bytes
    def __init__(self, image_id: _Optional[str] = ..., requirements: _Optional[bytes] = ...) -> None: ...

class PrepareEnvironmentResponse(_message.Message):
    __slots__ = ("progress", "environment_id")
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    ENVIRONMENT_ID_FIELD_NUMBER: _ClassVar[int]
    progress: str
    environment_id: str
    def __init__(self, progress: _Optional[str] = ..., environment_id: _Optional[str] = ...) -> None: ...

class StartReplicaRequest(_message.Message):
    __slots__ = ("replica_id", "deployment_id", "image_id", "model", "environment_id", "gpu_uuids", "gpus", "gpu_memory_bytes", "cpus", "memory_bytes", "variables", "volumes", "access_key", "generation")
    class VariablesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    class ReplicaVolume(_message.Message):
        __slots__ = ("name", "read_only")
        NAME_FIELD_NUMBER: _ClassVar[int]
        READ_ONLY_FIELD_NUMBER: _ClassVar[int]
        name: str
        read_only: bool
        def __init__(self, name: _Optional[str] = ..., read_only: _Optional[bool] = ...) -> None: ...
    REPLICA_ID_FIELD_NUMBER: _ClassVar[int]
    DEPLOYMENT_ID_FIELD_NUMBER: _ClassVar[int]
    IMAGE_ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    ENVIRONMENT_ID_FIELD_NUMBER: _ClassVar[int]
    GPU_UUIDS_FIELD_NUMBER: _ClassVar[int]
    GPUS_FIELD_NUMBER: _ClassVar[int]
    GPU_MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    CPUS_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    VARIABLES_FIELD_NUMBER: _ClassVar[int]
    VOLUMES_FIELD_NUMBER: _ClassVar[int]
    ACCESS_KEY_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    replica_id: str
    deployment_id: str
    image_id: str
    model: str
    environment_id: str
    gpu_uuids: _containers.RepeatedScalarFieldContainer[str]
    gpus: float
    gpu_memory_bytes: int
    cpus: float
    memory_bytes: int
    variables: _containers.ScalarMap[str, str]
    volumes: _containers.RepeatedCompositeFieldContainer[StartReplicaRequest.ReplicaVolume]
    access_key: str
    generation: int
    def __init__(self, replica_id: _Optional[str] = ..., deployment_id: _Optional[str] = ..., image_id: _Optional[str] = ..., model: _Optional[str] = ..., environment_id: _Optional[str] = ..., gpu_uuids: _Optional[_Iterable[str]] = ..., gpus: _Optional[float] = ..., gpu_memory_bytes: _Optional[int] = ..., cpus: _Optional[float] = ..., memory_bytes: _Optional[int] = ..., variables: _Optional[_Mapping[str, str]] = ..., volumes: _Optional[_Iterable[_Union[StartReplicaRequest.ReplicaVolume, _Mapping]]] = ..., access_key: _Optional[str] = ..., generation: _Optional[int] = ...) -> None: ...

class StartReplicaResponse(_message.Message):
    __slots__ = ("container",)
    CONTAINER_FIELD_NUMBER: _ClassVar[int]
    container: ReplicaContainer
    def __init__(self, container: _Optional[_Union[ReplicaContainer, _Mapping]] = ...) -> None: ...

class ListReplicasRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListReplicasResponse(_message.Message):
    __slots__ = ("containers",)
    CONTAINERS_FIELD_NUMBER: _ClassVar[int]
    containers: _containers.RepeatedCompositeFieldContainer[ReplicaContainer]
    def __init__(self, containers: _Optional[_Iterable[_Union[ReplicaContainer, _Mapping]]] = ...) -> None: ...

class WatchReplicaRequest(_message.Message):
    __slots__ = ("replica_id",)
    REPLICA_ID_FIELD_NUMBER: _ClassVar[int]
    replica_id: str
    def __init__(self, replica_id: _Optional[str] = ...) -> None: ...

class WatchReplicaResponse(_message.Message):
    __slots__ = ("container",)
    CONTAINER_FIELD_NUMBER: _ClassVar[int]
    container: ReplicaContainer
    def __init__(self, container: _Optional[_Union[ReplicaContainer, _Mapping]] = ...) -> None: ...

class FollowReplicaLogRequest(_message.Message):
    __slots__ = ("replica_id", "after_time")
    REPLICA_ID_FIELD_NUMBER: _ClassVar[int]
    AFTER_TIME_FIELD_NUMBER: _ClassVar[int]
    replica_id: str
    after_time: _timestamp_pb2.Timestamp
    def __init__(self, replica_id: _Optional[str] = ..., after_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class FollowReplicaLogResponse(_message.Message):
    __slots__ = ("text", "written_time")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    WRITTEN_TIME_FIELD_NUMBER: _ClassVar[int]
    text: str
    written_time: _timestamp_pb2.Timestamp
    def __init__(self, text: _Optional[str] = ..., written_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class StopReplicaRequest(_message.Message):
    __slots__ = ("replica_id", "grace_period")
    REPLICA_ID_FIELD_NUMBER: _ClassVar[int]
    GRACE_PERIOD_FIELD_NUMBER: _ClassVar[int]
    replica_id: str
    grace_period: _duration_pb2.Duration
    def __init__(self, replica_id: _Optional[str] = ..., grace_period: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class StopReplicaResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...
