"""Waiting until a deployment serves, as commands say it."""

import grpc.aio

from forebay import becoming_ready
from forebay.becoming_ready import NotReadyError
from forebay.cli.failure import CliError, raise_for
from forebay.cli.link import Link
from forebay.cli.output import Progress
from forebay.v1.deployment_pb2 import Deployment


async def until_ready(
    deployment: Deployment,
    autoscaler: Link,
    metrics: Link,
    timeout_s: float,
    tell: Progress,
    is_new: bool = False,
) -> Deployment:
    """As `becoming_ready.until_ready`.

    Raises:
        CliError: if a replica fails or the time is over.
    """
    try:
        return await becoming_ready.until_ready(
            deployment, autoscaler.channel, metrics.channel, timeout_s, tell, is_new
        )
    except NotReadyError as error:
        raise CliError(str(error)) from None
    except grpc.aio.AioRpcError as error:
        raise_for(error, autoscaler.service, autoscaler.address)
