"""DeploymentService: thin transport round `Deployments`."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
import grpc.aio
import nats.errors

from forebay.v1 import deployment_pb2, deployment_pb2_grpc
from services.autoscaler.deployments import Deployments
from services.wire import pages
from services.wire.status import StatusError, nats_away


class DeploymentService(deployment_pb2_grpc.DeploymentServiceServicer):
    """Declares what should run."""

    def __init__(self, deployments: Deployments) -> None:
        self._deployments = deployments

    async def CreateDeployment(
        self,
        request: deployment_pb2.CreateDeploymentRequest,
        context: grpc.aio.ServicerContext,
    ) -> deployment_pb2.CreateDeploymentResponse:
        """Creates a deployment."""
        response = deployment_pb2.CreateDeploymentResponse()
        async with _statuses(context):
            made = await self._deployments.create(
                request.deployment_id, request.deployment, request.validate_only
            )
            response.deployment.CopyFrom(made)
        return response

    async def GetDeployment(
        self, request: deployment_pb2.GetDeploymentRequest, context: grpc.aio.ServicerContext
    ) -> deployment_pb2.GetDeploymentResponse:
        """Returns a deployment."""
        response = deployment_pb2.GetDeploymentResponse()
        async with _statuses(context):
            response.deployment.CopyFrom(self._deployments.get(request.name))
        return response

    async def ListDeployments(
        self, request: deployment_pb2.ListDeploymentsRequest, context: grpc.aio.ServicerContext
    ) -> deployment_pb2.ListDeploymentsResponse:
        """Lists deployments by name."""
        response = deployment_pb2.ListDeploymentsResponse()
        async with _statuses(context):
            listed, token = pages.page(
                self._deployments.list_all(), request.page_size, request.page_token
            )
            response.deployments.extend(listed)
            response.next_page_token = token
        return response

    async def UpdateDeployment(
        self, request: deployment_pb2.UpdateDeploymentRequest, context: grpc.aio.ServicerContext
    ) -> deployment_pb2.UpdateDeploymentResponse:
        """Changes the fields named by the mask."""
        response = deployment_pb2.UpdateDeploymentResponse()
        async with _statuses(context):
            mask = request.update_mask if request.HasField("update_mask") else None
            changed = await self._deployments.update(
                request.deployment, mask, request.validate_only
            )
            response.deployment.CopyFrom(changed)
        return response

    async def DeleteDeployment(
        self, request: deployment_pb2.DeleteDeploymentRequest, context: grpc.aio.ServicerContext
    ) -> deployment_pb2.DeleteDeploymentResponse:
        """Removes a deployment and drains its replicas."""
        async with _statuses(context):
            await self._deployments.delete(request.name, request.etag, request.validate_only)
        return deployment_pb2.DeleteDeploymentResponse()


@asynccontextmanager
async def _statuses(context: grpc.aio.ServicerContext) -> AsyncIterator[None]:
    """Ends the call with the status that an error means."""
    try:
        yield
    except StatusError as error:
        await context.abort(error.code, str(error))
    except pages.PageError as error:
        await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
    except (nats.errors.Error, TimeoutError) as error:
        await context.abort(*nats_away(error))
