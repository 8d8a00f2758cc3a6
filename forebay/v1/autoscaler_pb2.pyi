import datetime

from forebay.v1 import deployment_pb2 as _deployment_pb2
from forebay.v1 import scaling_pb2 as _scaling_pb2
from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Assignment(_message.Message):
    __slots__ = ("replica_id", "deployment", "generation", "model_digest", "gpu_uuids", "resources", "max_ongoing_requests", "request_timeout", "canary", "environment", "volumes", "image", "scale_decision", "traceparent")
    class EnvironmentEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    REPLICA_ID_FIELD_NUMBER: _ClassVar[int]
    DEPLOYMENT_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    MODEL_DIGEST_FIELD_NUMBER: _ClassVar[int]
    GPU_UUIDS_FIELD_NUMBER: _ClassVar[int]
    RESOURCES_FIELD_NUMBER: _ClassVar[int]
    MAX_ONGOING_REQUESTS_FIELD_NUMBER: _ClassVar[int]
    REQUEST_TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    CANARY_FIELD_NUMBER: _ClassVar[int]
    ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    VOLUMES_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    SCALE_DECISION_FIELD_NUMBER: _ClassVar[int]
    TRACEPARENT_FIELD_NUMBER: _ClassVar[int]
    replica_id: str
    deployment: str
    generation: int
    model_digest: str
    gpu_uuids: _containers.RepeatedScalarFieldContainer[str]
    resources: _deployment_pb2.ReplicaResources
    max_ongoing_requests: int
    request_timeout: _duration_pb2.Duration
    canary: _deployment_pb2.Canary
    environment: _containers.ScalarMap[str, str]
    volumes: _containers.RepeatedCompositeFieldContainer[_deployment_pb2.VolumeMount]
    image: str
    scale_decision: str
    traceparent: str
    def __init__(self, replica_id: _Optional[str] = ..., deployment: _Optional[str] = ..., generation: _Optional[int] = ..., model_digest: _Optional[str] = ..., gpu_uuids: _Optional[_Iterable[str]] = ..., resources: _Optional[_Union[_deployment_pb2.ReplicaResources, _Mapping]] = ..., max_ongoing_requests: _Optional[int] = ..., request_timeout: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., canary: _Optional[_Union[_deployment_pb2.Canary, _Mapping]] = ..., environment: _Optional[_Mapping[str, str]] = ..., volumes: _Optional[_Iterable[_Union[_deployment_pb2.VolumeMount, _Mapping]]] = ..., image: _Optional[str] = ..., scale_decision: _Optional[str] = ..., traceparent: _Optional[str] = ...) -> None: ...

class AssignmentSet(_message.Message):
    __slots__ = ("assignments", "revision", "epoch")
    ASSIGNMENTS_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    assignments: _containers.RepeatedCompositeFieldContainer[Assignment]
    revision: int
    epoch: int
    def __init__(self, assignments: _Optional[_Iterable[_Union[Assignment, _Mapping]]] = ..., revision: _Optional[int] = ..., epoch: _Optional[int] = ...) -> None: ...

class WatchAssignmentsRequest(_message.Message):
    __slots__ = ("node",)
    NODE_FIELD_NUMBER: _ClassVar[int]
    node: str
    def __init__(self, node: _Optional[str] = ...) -> None: ...

class WatchAssignmentsResponse(_message.Message):
    __slots__ = ("assignments", "revision", "epoch")
    ASSIGNMENTS_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    assignments: _containers.RepeatedCompositeFieldContainer[Assignment]
    revision: int
    epoch: int
    def __init__(self, assignments: _Optional[_Iterable[_Union[Assignment, _Mapping]]] = ..., revision: _Optional[int] = ..., epoch: _Optional[int] = ...) -> None: ...

class ListScaleDecisionsRequest(_message.Message):
    __slots__ = ("parent", "page_size", "page_token")
    PARENT_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    parent: str
    page_size: int
    page_token: str
    def __init__(self, parent: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListScaleDecisionsResponse(_message.Message):
    __slots__ = ("scale_decisions", "next_page_token")
    SCALE_DECISIONS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    scale_decisions: _containers.RepeatedCompositeFieldContainer[_scaling_pb2.ScaleDecision]
    next_page_token: str
    def __init__(self, scale_decisions: _Optional[_Iterable[_Union[_scaling_pb2.ScaleDecision, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class GetScaleDecisionRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class GetScaleDecisionResponse(_message.Message):
    __slots__ = ("scale_decision",)
    SCALE_DECISION_FIELD_NUMBER: _ClassVar[int]
    scale_decision: _scaling_pb2.ScaleDecision
    def __init__(self, scale_decision: _Optional[_Union[_scaling_pb2.ScaleDecision, _Mapping]] = ...) -> None: ...

class WatchScaleDecisionsRequest(_message.Message):
    __slots__ = ("parent",)
    PARENT_FIELD_NUMBER: _ClassVar[int]
    parent: str
    def __init__(self, parent: _Optional[str] = ...) -> None: ...

class WatchScaleDecisionsResponse(_message.Message):
    __slots__ = ("scale_decision",)
    SCALE_DECISION_FIELD_NUMBER: _ClassVar[int]
    scale_decision: _scaling_pb2.ScaleDecision
    def __init__(self, scale_decision: _Optional[_Union[_scaling_pb2.ScaleDecision, _Mapping]] = ...) -> None: ...

class GetNodeDemandRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetNodeDemandResponse(_message.Message):
    __slots__ = ("node_demand",)
    NODE_DEMAND_FIELD_NUMBER: _ClassVar[int]
    node_demand: NodeDemand
    def __init__(self, node_demand: _Optional[_Union[NodeDemand, _Mapping]] = ...) -> None: ...

class NodeDemand(_message.Message):
    __slots__ = ("sample_time", "unplaced", "releasable_nodes", "evacuating_nodes", "provider_note")
    class Shape(_message.Message):
        __slots__ = ("resources", "replica_count", "deployments")
        RESOURCES_FIELD_NUMBER: _ClassVar[int]
        REPLICA_COUNT_FIELD_NUMBER: _ClassVar[int]
        DEPLOYMENTS_FIELD_NUMBER: _ClassVar[int]
        resources: _deployment_pb2.ReplicaResources
        replica_count: int
        deployments: _containers.RepeatedScalarFieldContainer[str]
        def __init__(self, resources: _Optional[_Union[_deployment_pb2.ReplicaResources, _Mapping]] = ..., replica_count: _Optional[int] = ..., deployments: _Optional[_Iterable[str]] = ...) -> None: ...
    SAMPLE_TIME_FIELD_NUMBER: _ClassVar[int]
    UNPLACED_FIELD_NUMBER: _ClassVar[int]
    RELEASABLE_NODES_FIELD_NUMBER: _ClassVar[int]
    EVACUATING_NODES_FIELD_NUMBER: _ClassVar[int]
    PROVIDER_NOTE_FIELD_NUMBER: _ClassVar[int]
    sample_time: _timestamp_pb2.Timestamp
    unplaced: _containers.RepeatedCompositeFieldContainer[NodeDemand.Shape]
    releasable_nodes: _containers.RepeatedScalarFieldContainer[str]
    evacuating_nodes: _containers.RepeatedScalarFieldContainer[str]
    provider_note: str
    def __init__(self, sample_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., unplaced: _Optional[_Iterable[_Union[NodeDemand.Shape, _Mapping]]] = ..., releasable_nodes: _Optional[_Iterable[str]] = ..., evacuating_nodes: _Optional[_Iterable[str]] = ..., provider_note: _Optional[str] = ...) -> None: ...

class Leadership(_message.Message):
    __slots__ = ("holder", "address", "epoch", "renewal")
    HOLDER_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    RENEWAL_FIELD_NUMBER: _ClassVar[int]
    holder: str
    address: str
    epoch: int
    renewal: int
    def __init__(self, holder: _Optional[str] = ..., address: _Optional[str] = ..., epoch: _Optional[int] = ..., renewal: _Optional[int] = ...) -> None: ...
