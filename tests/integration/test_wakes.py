"""Routers' wakes and what the autoscaler makes of them, on a real nats-server."""

import asyncio
from pathlib import Path

from forebay.v1.deployment_pb2 import Deployment, DeploymentStatus
from forebay.v1.scaling_pb2 import ScaleState
from services.autoscaler.custom.runner import CustomPolicies
from services.autoscaler.declarations import Declarations
from services.autoscaler.journal import Journal
from services.autoscaler.roster import Roster
from services.autoscaler.targets import TARGET, Targets
from services.router.directory import DeploymentDirectory
from services.router.wakes import REPEAT_AFTER_S, Wakes
from services.runtime.clock import SystemClock
from services.wire import streams, subjects
from services.wire.kv_mirror import KvEntry, KvMirror
from services.wire.nats_link import NatsLink
from tests.support.control_plane import linked
from tests.support.eventually import eventually
from tests.support.nats_server import NatsServer


class Ahead(SystemClock):
    """A clock that a test puts forward."""

    ahead_s = 0.0

    def monotonic_s(self) -> float:
        return super().monotonic_s() + self.ahead_s


async def test_one_wake_at_a_time_and_none_while_a_replica_is_ready(tmp_path: Path) -> None:
    with NatsServer(tmp_path / "nats") as server:
        async with linked(server.url) as link:
            heard: list[bytes] = []
            await link.client.subscribe_direct(subjects.WAKES, lambda s, *_: heard.append(s))
            directory, clock = DeploymentDirectory(link), Ahead()
            wakes = Wakes(link, directory, clock)
            statuses = KvMirror(link, streams.deployments_bucket)
            await statuses.reload()
            for _ in range(50):
                wakes.tell("add")
            clock.ahead_s += REPEAT_AFTER_S
            wakes.tell("add")
            wakes.tell("other")
            await link.client.flush()
            await eventually(lambda: len(heard) == 3)
            assert heard == [subjects.wake(d).encode() for d in ("add", "add", "other")]
            ready = DeploymentStatus(ready_replica_count=1).SerializeToString()
            await statuses.put("status.add", ready, 0)
            await directory._mirror.reload()
            clock.ahead_s += REPEAT_AFTER_S
            wakes.tell("add")
            await link.client.flush()
            assert len(heard) == 3


async def test_a_wake_while_targets_are_written_is_written_too(tmp_path: Path) -> None:
    with NatsServer(tmp_path / "nats") as server:
        async with linked(server.url) as link:
            kept = KvMirror(link, streams.scaling_bucket)
            await kept.reload()
            targets = _targets(link, kept)
            targets.look({}, None, Roster())
            writing = asyncio.create_task(targets.keep(lambda: None))
            # As far as to the answer of nats-server.
            await asyncio.sleep(0)
            assert targets.wake("add", 1, 0) == 1
            await writing
            await targets.keep(lambda: None)
            entry = kept.get(TARGET + "add")
            assert entry is not None
            assert ScaleState.FromString(entry.value).target_replica_count == 1


def _targets(link: NatsLink, kept: KvMirror) -> Targets:
    deployment = Deployment(name="deployments/add", generation=1, max_ongoing_requests=1)
    deployment.scaling.policy.queue_depth.max_tasks_per_replica = 1
    entry = KvEntry(deployment.SerializeToString(), 1)
    clock = SystemClock()
    targets = Targets(kept, Journal(link), clock, CustomPolicies(None, clock))
    targets.begin_term(1)
    targets.declare(Declarations().update({"add": entry}), Roster())
    return targets
