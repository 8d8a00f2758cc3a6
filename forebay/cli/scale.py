"""`forebay scale`: sets the number of replicas by hand, releases it, and tries policies out."""

import asyncio
from dataclasses import dataclass

from google.protobuf.field_mask_pb2 import FieldMask

from forebay import addresses
from forebay.cli.failure import USAGE, CliError
from forebay.cli.link import Link, Where, link_to
from forebay.cli.output import Output, count_of, print_json, say, to_plain
from forebay.cli.scaling_words import long_scaling, target_of
from forebay.cli.show import resource_name
from forebay.stubs import deployment_service
from forebay.v1.deployment_pb2 import Deployment, GetDeploymentRequest, UpdateDeploymentRequest

TOLD_TIMEOUT_S = 3.0
_POLL_S = 0.1


@dataclass(frozen=True, slots=True)
class Change:
    """What to change; None leaves it as it is.

    Attributes:
        replicas: number of replicas to pin.
        release: whether to let go of the pin.
        advisory: whether decisions are only made and not acted on.
    """

    replicas: int | None = None
    release: bool = False
    advisory: bool | None = None

    def update(self, name: str) -> UpdateDeploymentRequest:
        """The change as the autoscaler takes it.

        Raises:
            CliError: if nothing is to change, or both of what excludes each other.
        """
        if self.replicas is not None and self.release:
            raise CliError("say a number of replicas or --release, not both", USAGE)
        deployment = Deployment(name=name)
        paths = []
        if self.replicas is not None:
            deployment.pinned_replicas = self.replicas
        if self.replicas is not None or self.release:
            paths.append("pinned_replicas")
        if self.advisory is not None:
            deployment.scaling.advisory = self.advisory
            paths.append("scaling.advisory")
        if not paths:
            raise CliError(
                "say what to change: a number of replicas, --release, --advisory or --live", USAGE
            )
        return UpdateDeploymentRequest(deployment=deployment, update_mask=FieldMask(paths=paths))


async def run(name: str, change: Change, where: Where, output: Output) -> None:
    """Changes who decides on the number of replicas of a deployment.

    Raises:
        CliError: if it cannot be changed.
    """
    request = change.update(resource_name(name))
    async with link_to(addresses.AUTOSCALER, where) as autoscaler:
        service = deployment_service(autoscaler.channel)
        answer = await autoscaler.call(service.UpdateDeployment, request)
        deployment = await _acted_on(answer.deployment, autoscaler)
    for sentence in _said(name, deployment, change):
        say(sentence)
    if output is Output.JSON:
        print_json(to_plain(deployment))


async def _acted_on(deployment: Deployment, autoscaler: Link) -> Deployment:
    """The deployment once a pin is its target, or as it is after a while."""
    service = deployment_service(autoscaler.channel)
    try:
        async with asyncio.timeout(TOLD_TIMEOUT_S):
            while deployment.status.target_replica_count != target_of(deployment):
                await asyncio.sleep(_POLL_S)
                answer = await autoscaler.call(
                    service.GetDeployment, GetDeploymentRequest(name=deployment.name)
                )
                deployment = answer.deployment
    except TimeoutError:
        # It is kept, and will be acted on: the target that is told is the one asked for.
        pass
    return deployment


def _said(name: str, deployment: Deployment, change: Change) -> list[str]:
    said = []
    target = count_of(target_of(deployment), "replica")
    if change.replicas is not None:
        said.append(
            f"{name} is pinned: the target is {target} until `forebay scale {name} --release`"
        )
    elif change.release and deployment.HasField("scaling"):
        said.append(
            f"{name} is released: its policy decides again; the target is {target} now. "
            f"{long_scaling(deployment.scaling)}"
        )
    elif change.release:
        said.append(f"{name} is released: the target is {target} again, as it is declared")
    if change.advisory is True:
        said.append(
            f"{name} is advisory: decisions are made and kept but not acted on; the target stays "
            f"{target}. `forebay decisions {name} --follow` shows them"
        )
    elif change.advisory is False:
        said.append(f"{name} is live: decisions are acted on; the target is {target} now")
    return said
