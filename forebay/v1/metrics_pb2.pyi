import datetime

from forebay.v1 import node_pb2 as _node_pb2
from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Snapshot(_message.Message):
    __slots__ = ("sample_time", "deployments", "nodes")
    SAMPLE_TIME_FIELD_NUMBER: _ClassVar[int]
    DEPLOYMENTS_FIELD_NUMBER: _ClassVar[int]
    NODES_FIELD_NUMBER: _ClassVar[int]
    sample_time: _timestamp_pb2.Timestamp
    deployments: _containers.RepeatedCompositeFieldContainer[DeploymentLoad]
    nodes: _containers.RepeatedCompositeFieldContainer[_node_pb2.Node]
    def __init__(self, sample_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., deployments: _Optional[_Iterable[_Union[DeploymentLoad, _Mapping]]] = ..., nodes: _Optional[_Iterable[_Union[_node_pb2.Node, _Mapping]]] = ...) -> None: ...

class DeploymentLoad(_message.Message):
    __slots__ = ("deployment", "queued_count", "ongoing_count", "redelivered_count", "arrivals_per_second", "queue_wait", "service_time", "ready_replica_count", "starting_replica_count", "draining_replica_count", "failed_replica_count", "age", "oldest_queued_age", "poison_count", "startup_time", "queued_task_count", "ongoing_task_count", "dead_task_count")
    DEPLOYMENT_FIELD_NUMBER: _ClassVar[int]
    QUEUED_COUNT_FIELD_NUMBER: _ClassVar[int]
    ONGOING_COUNT_FIELD_NUMBER: _ClassVar[int]
    REDELIVERED_COUNT_FIELD_NUMBER: _ClassVar[int]
    ARRIVALS_PER_SECOND_FIELD_NUMBER: _ClassVar[int]
    QUEUE_WAIT_FIELD_NUMBER: _ClassVar[int]
    SERVICE_TIME_FIELD_NUMBER: _ClassVar[int]
    READY_REPLICA_COUNT_FIELD_NUMBER: _ClassVar[int]
    STARTING_REPLICA_COUNT_FIELD_NUMBER: _ClassVar[int]
    DRAINING_REPLICA_COUNT_FIELD_NUMBER: _ClassVar[int]
    FAILED_REPLICA_COUNT_FIELD_NUMBER: _ClassVar[int]
    AGE_FIELD_NUMBER: _ClassVar[int]
    OLDEST_QUEUED_AGE_FIELD_NUMBER: _ClassVar[int]
    POISON_COUNT_FIELD_NUMBER: _ClassVar[int]
    STARTUP_TIME_FIELD_NUMBER: _ClassVar[int]
    QUEUED_TASK_COUNT_FIELD_NUMBER: _ClassVar[int]
    ONGOING_TASK_COUNT_FIELD_NUMBER: _ClassVar[int]
    DEAD_TASK_COUNT_FIELD_NUMBER: _ClassVar[int]
    deployment: str
    queued_count: int
    ongoing_count: int
    redelivered_count: int
    arrivals_per_second: float
    queue_wait: LatencyQuantiles
    service_time: LatencyQuantiles
    ready_replica_count: int
    starting_replica_count: int
    draining_replica_count: int
    failed_replica_count: int
    age: _duration_pb2.Duration
    oldest_queued_age: _duration_pb2.Duration
    poison_count: int
    startup_time: _duration_pb2.Duration
    queued_task_count: int
    ongoing_task_count: int
    dead_task_count: int
    def __init__(self, deployment: _Optional[str] = ..., queued_count: _Optional[int] = ..., ongoing_count: _Optional[int] = ..., redelivered_count: _Optional[int] = ..., arrivals_per_second: _Optional[float] = ..., queue_wait: _Optional[_Union[LatencyQuantiles, _Mapping]] = ..., service_time: _Optional[_Union[LatencyQuantiles, _Mapping]] = ..., ready_replica_count: _Optional[int] = ..., starting_replica_count: _Optional[int] = ..., draining_replica_count: _Optional[int] = ..., failed_replica_count: _Optional[int] = ..., age: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., oldest_queued_age: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., poison_count: _Optional[int] = ..., startup_time: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., queued_task_count: _Optional[int] = ..., ongoing_task_count: _Optional[int] = ..., dead_task_count: _Optional[int] = ...) -> None: ...

class LatencyQuantiles(_message.Message):
    __slots__ = ("p50", "p95", "p99", "count", "mean")
    P50_FIELD_NUMBER: _ClassVar[int]
    P95_FIELD_NUMBER: _ClassVar[int]
    P99_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    MEAN_FIELD_NUMBER: _ClassVar[int]
    p50: _duration_pb2.Duration
    p95: _duration_pb2.Duration
    p99: _duration_pb2.Duration
    count: int
    mean: _duration_pb2.Duration
    def __init__(self, p50: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., p95: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., p99: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., count: _Optional[int] = ..., mean: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class GetSnapshotRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetSnapshotResponse(_message.Message):
    __slots__ = ("snapshot",)
    SNAPSHOT_FIELD_NUMBER: _ClassVar[int]
    snapshot: Snapshot
    def __init__(self, snapshot: _Optional[_Union[Snapshot, _Mapping]] = ...) -> None: ...

class WatchSnapshotsRequest(_message.Message):
    __slots__ = ("interval",)
    INTERVAL_FIELD_NUMBER: _ClassVar[int]
    interval: _duration_pb2.Duration
    def __init__(self, interval: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class WatchSnapshotsResponse(_message.Message):
    __slots__ = ("snapshot",)
    SNAPSHOT_FIELD_NUMBER: _ClassVar[int]
    snapshot: Snapshot
    def __init__(self, snapshot: _Optional[_Union[Snapshot, _Mapping]] = ...) -> None: ...
