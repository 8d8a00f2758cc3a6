import datetime

from forebay.v1 import scaling_pb2 as _scaling_pb2
from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import field_mask_pb2 as _field_mask_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Deployment(_message.Message):
    __slots__ = ("name", "model_digest", "replicas", "resources", "max_ongoing_requests", "request_timeout", "max_queued_requests", "canary", "scaling", "pinned_replicas", "placement", "environment", "volumes", "image", "generation", "etag", "create_time", "update_time", "status")
    class Placement(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        PLACEMENT_UNSPECIFIED: _ClassVar[Deployment.Placement]
        PLACEMENT_COMPACT: _ClassVar[Deployment.Placement]
        PLACEMENT_SPREAD: _ClassVar[Deployment.Placement]
    PLACEMENT_UNSPECIFIED: Deployment.Placement
    PLACEMENT_COMPACT: Deployment.Placement
    PLACEMENT_SPREAD: Deployment.Placement
    class EnvironmentEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    MODEL_DIGEST_FIELD_NUMBER: _ClassVar[int]
    REPLICAS_FIELD_NUMBER: _ClassVar[int]
    RESOURCES_FIELD_NUMBER: _ClassVar[int]
    MAX_ONGOING_REQUESTS_FIELD_NUMBER: _ClassVar[int]
    REQUEST_TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    MAX_QUEUED_REQUESTS_FIELD_NUMBER: _ClassVar[int]
    CANARY_FIELD_NUMBER: _ClassVar[int]
    SCALING_FIELD_NUMBER: _ClassVar[int]
    PINNED_REPLICAS_FIELD_NUMBER: _ClassVar[int]
    PLACEMENT_FIELD_NUMBER: _ClassVar[int]
    ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    VOLUMES_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    ETAG_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    UPDATE_TIME_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    name: str
    model_digest: str
    replicas: int
    resources: ReplicaResources
    max_ongoing_requests: int
    request_timeout: _duration_pb2.Duration
    max_queued_requests: int
    canary: Canary
    scaling: _scaling_pb2.ScalingPolicy
    pinned_replicas: int
    placement: Deployment.Placement
    environment: _containers.ScalarMap[str, str]
    volumes: _containers.RepeatedCompositeFieldContainer[VolumeMount]
    image: str
    generation: int
    etag: str
    create_time: _timestamp_pb2.Timestamp
    update_time: _timestamp_pb2.Timestamp
    status: DeploymentStatus
    def __init__(self, name: _Optional[str] = ..., model_digest: _Optional[str] = ..., replicas: _Optional[int] = ..., resources: _Optional[_Union[ReplicaResources, _Mapping]] = ..., max_ongoing_requests: _Optional[int] = ..., request_timeout: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., max_queued_requests: _Optional[int] = ..., canary: _Optional[_Union[Canary, _Mapping]] = ..., scaling: _Optional[_Union[_scaling_pb2.ScalingPolicy, _Mapping]] = ..., pinned_replicas: _Optional[int] = ..., placement: _Optional[_Union[Deployment.Placement, str]] = ..., environment: _Optional[_Mapping[str, str]] = ..., volumes: _Optional[_Iterable[_Union[VolumeMount, _Mapping]]] = ..., image: _Optional[str] = ..., generation: _Optional[int] = ..., etag: _Optional[str] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., update_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., status: _Optional[_Union[DeploymentStatus, _Mapping]] = ...) -> None: ...

class DeploymentStatus(_message.Message):
    __slots__ = ("assigned_replica_count", "ready_replica_count", "starting_replica_count", "draining_replica_count", "failed_replica_count", "updated_replica_count", "message", "target_replica_count", "unplaced_replica_count", "decision_reason", "startup_time", "observed_revision", "max_gpu_memory_used_bytes", "warnings")
    ASSIGNED_REPLICA_COUNT_FIELD_NUMBER: _ClassVar[int]
    READY_REPLICA_COUNT_FIELD_NUMBER: _ClassVar[int]
    STARTING_REPLICA_COUNT_FIELD_NUMBER: _ClassVar[int]
    DRAINING_REPLICA_COUNT_FIELD_NUMBER: _ClassVar[int]
    FAILED_REPLICA_COUNT_FIELD_NUMBER: _ClassVar[int]
    UPDATED_REPLICA_COUNT_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    TARGET_REPLICA_COUNT_FIELD_NUMBER: _ClassVar[int]
    UNPLACED_REPLICA_COUNT_FIELD_NUMBER: _ClassVar[int]
    DECISION_REASON_FIELD_NUMBER: _ClassVar[int]
    STARTUP_TIME_FIELD_NUMBER: _ClassVar[int]
    OBSERVED_REVISION_FIELD_NUMBER: _ClassVar[int]
    MAX_GPU_MEMORY_USED_BYTES_FIELD_NUMBER: _ClassVar[int]
    WARNINGS_FIELD_NUMBER: _ClassVar[int]
    assigned_replica_count: int
    ready_replica_count: int
    starting_replica_count: int
    draining_replica_count: int
    failed_replica_count: int
    updated_replica_count: int
    message: str
    target_replica_count: int
    unplaced_replica_count: int
    decision_reason: str
    startup_time: _duration_pb2.Duration
    observed_revision: int
    max_gpu_memory_used_bytes: int
    warnings: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, assigned_replica_count: _Optional[int] = ..., ready_replica_count: _Optional[int] = ..., starting_replica_count: _Optional[int] = ..., draining_replica_count: _Optional[int] = ..., failed_replica_count: _Optional[int] = ..., updated_replica_count: _Optional[int] = ..., message: _Optional[str] = ..., target_replica_count: _Optional[int] = ..., unplaced_replica_count: _Optional[int] = ..., decision_reason: _Optional[str] = ..., startup_time: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., observed_revision: _Optional[int] = ..., max_gpu_memory_used_bytes: _Optional[int] = ..., warnings: _Optional[_Iterable[str]] = ...) -> None: ...

class VolumeMount(_message.Message):
    __slots__ = ("name", "read_only")
    NAME_FIELD_NUMBER: _ClassVar[int]
    READ_ONLY_FIELD_NUMBER: _ClassVar[int]
    name: str
    read_only: bool
    def __init__(self, name: _Optional[str] = ..., read_only: _Optional[bool] = ...) -> None: ...

class ReplicaResources(_message.Message):
    __slots__ = ("gpus", "gpu_memory_bytes", "accelerator_type", "cpus", "memory_bytes", "custom", "workers")
    class CustomEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    GPUS_FIELD_NUMBER: _ClassVar[int]
    GPU_MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    ACCELERATOR_TYPE_FIELD_NUMBER: _ClassVar[int]
    CPUS_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    CUSTOM_FIELD_NUMBER: _ClassVar[int]
    WORKERS_FIELD_NUMBER: _ClassVar[int]
    gpus: float
    gpu_memory_bytes: int
    accelerator_type: str
    cpus: float
    memory_bytes: int
    custom: _containers.ScalarMap[str, float]
    workers: int
    def __init__(self, gpus: _Optional[float] = ..., gpu_memory_bytes: _Optional[int] = ..., accelerator_type: _Optional[str] = ..., cpus: _Optional[float] = ..., memory_bytes: _Optional[int] = ..., custom: _Optional[_Mapping[str, float]] = ..., workers: _Optional[int] = ...) -> None: ...

class Canary(_message.Message):
    __slots__ = ("mode",)
    class Mode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        MODE_UNSPECIFIED: _ClassVar[Canary.Mode]
        MODE_ZEROS: _ClassVar[Canary.Mode]
        MODE_OFF: _ClassVar[Canary.Mode]
    MODE_UNSPECIFIED: Canary.Mode
    MODE_ZEROS: Canary.Mode
    MODE_OFF: Canary.Mode
    MODE_FIELD_NUMBER: _ClassVar[int]
    mode: Canary.Mode
    def __init__(self, mode: _Optional[_Union[Canary.Mode, str]] = ...) -> None: ...

class CreateDeploymentRequest(_message.Message):
    __slots__ = ("deployment_id", "deployment", "validate_only")
    DEPLOYMENT_ID_FIELD_NUMBER: _ClassVar[int]
    DEPLOYMENT_FIELD_NUMBER: _ClassVar[int]
    VALIDATE_ONLY_FIELD_NUMBER: _ClassVar[int]
    deployment_id: str
    deployment: Deployment
    validate_only: bool
    def __init__(self, deployment_id: _Optional[str] = ..., deployment: _Optional[_Union[Deployment, _Mapping]] = ..., validate_only: _Optional[bool] = ...) -> None: ...

class CreateDeploymentResponse(_message.Message):
    __slots__ = ("deployment",)
    DEPLOYMENT_FIELD_NUMBER: _ClassVar[int]
    deployment: Deployment
    def __init__(self, deployment: _Optional[_Union[Deployment, _Mapping]] = ...) -> None: ...

class GetDeploymentRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class GetDeploymentResponse(_message.Message):
    __slots__ = ("deployment",)
    DEPLOYMENT_FIELD_NUMBER: _ClassVar[int]
    deployment: Deployment
    def __init__(self, deployment: _Optional[_Union[Deployment, _Mapping]] = ...) -> None: ...

class ListDeploymentsRequest(_message.Message):
    __slots__ = ("page_size", "page_token")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListDeploymentsResponse(_message.Message):
    __slots__ = ("deployments", "next_page_token")
    DEPLOYMENTS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    deployments: _containers.RepeatedCompositeFieldContainer[Deployment]
    next_page_token: str
    def __init__(self, deployments: _Optional[_Iterable[_Union[Deployment, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class UpdateDeploymentRequest(_message.Message):
    __slots__ = ("deployment", "update_mask", "validate_only")
    DEPLOYMENT_FIELD_NUMBER: _ClassVar[int]
    UPDATE_MASK_FIELD_NUMBER: _ClassVar[int]
    VALIDATE_ONLY_FIELD_NUMBER: _ClassVar[int]
    deployment: Deployment
    update_mask: _field_mask_pb2.FieldMask
    validate_only: bool
    def __init__(self, deployment: _Optional[_Union[Deployment, _Mapping]] = ..., update_mask: _Optional[_Union[_field_mask_pb2.FieldMask, _Mapping]] = ..., validate_only: _Optional[bool] = ...) -> None: ...

class UpdateDeploymentResponse(_message.Message):
    __slots__ = ("deployment",)
    DEPLOYMENT_FIELD_NUMBER: _ClassVar[int]
    deployment: Deployment
    def __init__(self, deployment: _Optional[_Union[Deployment, _Mapping]] = ...) -> None: ...

class DeleteDeploymentRequest(_message.Message):
    __slots__ = ("name", "etag", "validate_only")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ETAG_FIELD_NUMBER: _ClassVar[int]
    VALIDATE_ONLY_FIELD_NUMBER: _ClassVar[int]
    name: str
    etag: str
    validate_only: bool
    def __init__(self, name: _Optional[str] = ..., etag: _Optional[str] = ..., validate_only: _Optional[bool] = ...) -> None: ...

class DeleteDeploymentResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...
