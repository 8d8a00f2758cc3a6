"""A gRPC server that answers the command line's calls from lists, with the autoscaler's own rules."""  # noqa: E501

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio

from forebay.v1 import autoscaler_pb2, deployment_pb2, metrics_pb2, model_pb2, node_pb2
from forebay.v1.autoscaler_pb2_grpc import (
    AutoscalerServiceServicer,
    add_AutoscalerServiceServicer_to_server,
)
from forebay.v1.deployment_pb2 import Deployment
from forebay.v1.deployment_pb2_grpc import (
    DeploymentServiceServicer,
    add_DeploymentServiceServicer_to_server,
)
from forebay.v1.metrics_pb2_grpc import MetricsServiceServicer, add_MetricsServiceServicer_to_server
from forebay.v1.model_pb2_grpc import ModelServiceServicer, add_ModelServiceServicer_to_server
from forebay.v1.node_pb2_grpc import NodeServiceServicer, add_NodeServiceServicer_to_server
from forebay.v1.scaling_pb2 import ScaleDecision
from services.autoscaler import deployment_rules as rules
from services.wire.status import StatusError


class ListedMesh(
    AutoscalerServiceServicer,
    DeploymentServiceServicer,
    MetricsServiceServicer,
    ModelServiceServicer,
    NodeServiceServicer,
):
    """What a mesh would answer.

    Attributes:
        address: where it listens.
        decisions: oldest first; all on deployments.
        demand: what GetNodeDemand says.
        nodes: what ListNodes says.
        deployments: by name; statuses are what the test makes them.
        updates: the paths of each update's mask.
        watchers: one queue for each caller of WatchScaleDecisions; None ends its stream.
    """

    def __init__(self) -> None:
        self.address = ""
        self.decisions: list[ScaleDecision] = []
        self.demand = autoscaler_pb2.NodeDemand()
        self.nodes: list[node_pb2.Node] = []
        self.deployments: dict[str, Deployment] = {}
        self.updates: list[list[str]] = []
        self.watchers: list[asyncio.Queue[ScaleDecision | None]] = []
        self._models: dict[str, int] = {}

    def decide(self, decision: ScaleDecision) -> None:
        """Makes a decision: it is listed, and told to those who watch."""
        self.decisions.append(decision)
        for watcher in self.watchers:
            watcher.put_nowait(decision)

    async def ListScaleDecisions(self, request: Any, context: Any) -> Any:
        found = [d for d in reversed(self.decisions) if d.name.startswith(request.parent)]
        start = int(request.page_token or 0)
        # Short pages, so that more than one is needed.
        page = found[start : start + min(2, request.page_size)]
        more = start + len(page) < len(found)
        return autoscaler_pb2.ListScaleDecisionsResponse(
            scale_decisions=page, next_page_token=str(start + len(page)) if more else ""
        )

    async def GetScaleDecision(self, request: Any, context: Any) -> Any:
        for decision in self.decisions:
            if decision.name == request.name:
                return autoscaler_pb2.GetScaleDecisionResponse(scale_decision=decision)
        await context.abort(grpc.StatusCode.NOT_FOUND, f"there is no decision {request.name}")
        raise AssertionError

    async def WatchScaleDecisions(self, request: Any, context: Any) -> AsyncIterator[Any]:
        watcher: asyncio.Queue[ScaleDecision | None] = asyncio.Queue()
        self.watchers.append(watcher)
        await context.send_initial_metadata(())
        try:
            while (decision := await watcher.get()) is not None:
                if decision.name.startswith(request.parent):
                    yield autoscaler_pb2.WatchScaleDecisionsResponse(scale_decision=decision)
        finally:
            self.watchers.remove(watcher)

    async def GetNodeDemand(self, request: Any, context: Any) -> Any:
        return autoscaler_pb2.GetNodeDemandResponse(node_demand=self.demand)

    async def CreateDeployment(self, request: Any, context: Any) -> Any:
        deployment = rules.declared(request.deployment)
        deployment.name = f"deployments/{request.deployment_id}"
        deployment.generation = 1
        self.deployments[deployment.name] = deployment
        return deployment_pb2.CreateDeploymentResponse(deployment=deployment)

    async def GetDeployment(self, request: Any, context: Any) -> Any:
        if request.name not in self.deployments:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"there is no {request.name}")
        return deployment_pb2.GetDeploymentResponse(deployment=self.deployments[request.name])

    async def ListDeployments(self, request: Any, context: Any) -> Any:
        return deployment_pb2.ListDeploymentsResponse(deployments=self.deployments.values())

    async def UpdateDeployment(self, request: Any, context: Any) -> Any:
        name = request.deployment.name
        if name not in self.deployments:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"there is no {name}")
        self.updates.append(list(request.update_mask.paths))
        try:
            changed = rules.merged(self.deployments[name], request.deployment, request.update_mask)
        except StatusError as error:
            await context.abort(error.code, str(error))
            raise
        if changed.HasField("pinned_replicas"):
            changed.status.target_replica_count = changed.pinned_replicas
        self.deployments[name] = changed
        return deployment_pb2.UpdateDeploymentResponse(deployment=changed)

    async def GetModel(self, request: Any, context: Any) -> Any:
        if request.digest not in self._models:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"there is no model {request.digest}")
        return model_pb2.GetModelResponse()

    async def UploadModel(self, request_iterator: Any, context: Any) -> Any:
        first = await anext(request_iterator)
        async for _ in request_iterator:
            pass
        self._models[first.model.digest] = first.model.size_bytes
        return model_pb2.UploadModelResponse(model=first.model)

    async def ListNodes(self, request: Any, context: Any) -> Any:
        return node_pb2.ListNodesResponse(nodes=self.nodes)

    async def GetSnapshot(self, request: Any, context: Any) -> Any:
        return metrics_pb2.GetSnapshotResponse(snapshot=metrics_pb2.Snapshot(nodes=self.nodes))


@asynccontextmanager
async def listed_mesh() -> AsyncIterator[ListedMesh]:
    """A server with nothing in its lists yet, on a port the kernel chose."""
    mesh = ListedMesh()
    server = grpc.aio.server()
    add_AutoscalerServiceServicer_to_server(mesh, server)
    add_DeploymentServiceServicer_to_server(mesh, server)
    add_MetricsServiceServicer_to_server(mesh, server)
    add_ModelServiceServicer_to_server(mesh, server)
    add_NodeServiceServicer_to_server(mesh, server)
    mesh.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    try:
        yield mesh
    finally:
        await server.stop(None)
