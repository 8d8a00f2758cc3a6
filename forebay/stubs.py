"""The mesh's stubs on a channel. The generated classes are untyped; this is where that ends."""

from typing import Any, TypeAlias

from forebay.v1.autoscaler_pb2_grpc import AutoscalerServiceStub
from forebay.v1.deployment_pb2_grpc import DeploymentServiceStub
from forebay.v1.metrics_pb2_grpc import MetricsServiceStub
from forebay.v1.model_pb2_grpc import ModelServiceStub
from forebay.v1.node_pb2_grpc import NodeServiceStub
from forebay.v1.router_pb2_grpc import RouterServiceStub
from forebay.v1.schedule_pb2_grpc import ScheduleServiceStub
from forebay.v1.task_pb2_grpc import TaskServiceStub
from forebay.v1.usage_pb2_grpc import UsageServiceStub

Channel: TypeAlias = Any
"""A grpc.Channel or a grpc.aio.Channel; grpcio has no types."""


def router_service(channel: Channel) -> Any:
    """RouterService."""
    return _stub(RouterServiceStub, channel)


def task_service(channel: Channel) -> Any:
    """TaskService, at the router."""
    return _stub(TaskServiceStub, channel)


def deployment_service(channel: Channel) -> Any:
    """DeploymentService, at the autoscaler."""
    return _stub(DeploymentServiceStub, channel)


def autoscaler_service(channel: Channel) -> Any:
    """AutoscalerService."""
    return _stub(AutoscalerServiceStub, channel)


def model_service(channel: Channel) -> Any:
    """ModelService, at the autoscaler."""
    return _stub(ModelServiceStub, channel)


def schedule_service(channel: Channel) -> Any:
    """ScheduleService, at the autoscaler."""
    return _stub(ScheduleServiceStub, channel)


def node_service(channel: Channel) -> Any:
    """NodeService, at metrics."""
    return _stub(NodeServiceStub, channel)


def metrics_service(channel: Channel) -> Any:
    """MetricsService."""
    return _stub(MetricsServiceStub, channel)


def usage_service(channel: Channel) -> Any:
    """UsageService, at the autoscaler."""
    return _stub(UsageServiceStub, channel)


def _stub(stub_class: Any, channel: Channel) -> Any:
    return stub_class(channel)
