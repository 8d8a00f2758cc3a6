"""A time window on a real autoscaler: it raises the target, and its decisions can be made again."""

import asyncio
from pathlib import Path

from forebay.v1.autoscaler_pb2 import ListScaleDecisionsRequest
from forebay.v1.deployment_pb2 import Deployment
from forebay.v1.scaling_pb2 import Policy, QueueDepthPolicy, ScaleDecision, ScalingPolicy
from tests.support.control_plane import ControlPlane, control_plane
from tests.support.eventually import eventually
from tests.support.replayed import check_decisions

# Since this minute, and until the coming new year's eve.
OPEN = {"begin": "* * * * *", "end": "0 0 31 12 *", "min_replicas": 2}
# Since the last new year's eve, and over since this minute.
CLOSED = {"begin": "0 0 31 12 *", "end": "* * * * *", "min_replicas": 2}


def scaling(**window: object) -> ScalingPolicy:
    policy = Policy(queue_depth=QueueDepthPolicy(max_tasks_per_replica=1))
    made = ScalingPolicy(policy=policy, max_replicas=3)
    made.downscale_delay.SetInParent()
    made.downscale_to_zero_delay.SetInParent()
    if window:
        made.windows.add(**window)
    return made


async def target(mesh: ControlPlane, count: int) -> Deployment:
    async def has() -> Deployment | None:
        deployment = await mesh.get("model")
        return deployment if deployment.status.target_replica_count == count else None

    return await eventually(has)


async def decided(mesh: ControlPlane) -> list[ScaleDecision]:
    answer = await mesh.watches.ListScaleDecisions(ListScaleDecisionsRequest())
    return list(answer.scale_decisions)


async def test_an_open_window_keeps_replicas_and_a_closed_one_does_not(tmp_path: Path) -> None:
    async with control_plane(tmp_path) as mesh:
        await mesh.create("model", scaling=scaling())
        await eventually(lambda: decided(mesh))
        await target(mesh, 0)
        # A mask with the field alone, as whoever changes nothing else sends it.
        await mesh.update("model", "scaling.windows", scaling=scaling(**OPEN))
        await target(mesh, 2)
        await mesh.update("model", "scaling.windows", scaling=scaling(**CLOSED))
        await target(mesh, 0)

        async def windowed() -> list[ScaleDecision]:
            rule = ScaleDecision.RULE_WINDOW
            return [each for each in await decided(mesh) if each.rule == rule]

        (decision, *_) = await eventually(windowed)
        assert decision.signals.window_min_replicas == 2
        assert await asyncio.to_thread(check_decisions, mesh.autoscaler) > 1
