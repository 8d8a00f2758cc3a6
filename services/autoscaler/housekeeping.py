"""What nobody needs any more is cleared away, by the autoscaler that leads."""

import asyncio

import nats.errors
import structlog

from forebay.v1.autoscaler_pb2 import AssignmentSet
from forebay.v1.deployment_pb2 import Deployment
from services.autoscaler.leadership import Leadership
from services.autoscaler.model_store import ModelStore
from services.runtime.clock import Clock
from services.wire.kv_mirror import KvMirror

log = structlog.get_logger()

INTERVAL_S = 600.0


async def run(
    models: ModelStore,
    deployments: KvMirror,
    assignments: KvMirror,
    leadership: Leadership,
    clock: Clock,
) -> None:
    """Clears away models that nothing names, for ever."""
    while True:
        await asyncio.sleep(INTERVAL_S)
        if not leadership.leading:
            continue
        try:
            await models.clear_away(named(deployments, assignments), clock.monotonic_s())
        except (nats.errors.Error, TimeoutError) as error:
            log.warning("housekeeping.failed", error=str(error) or type(error).__name__)


def named(deployments: KvMirror, assignments: KvMirror) -> set[str]:
    """Digests of all models that a deployment declares or a replica runs."""
    specs = deployments.entries("spec.").values()
    sets = assignments.entries("node.").values()
    return {Deployment.FromString(entry.value).model_digest for entry in specs} | {
        assignment.model_digest
        for entry in sets
        for assignment in AssignmentSet.FromString(entry.value).assignments
    }
