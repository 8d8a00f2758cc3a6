"""What an agent makes of assignments, with a real Triton, and how soon it tells."""

import asyncio
import hashlib
import io
import json
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc.aio as tritonclient

from forebay.local import triton_setup
from forebay.v1.autoscaler_pb2 import Assignment
from forebay.v1.deployment_pb2 import ReplicaResources
from forebay.v1.node_pb2 import ReplicaStatus
from services.node_agent.main import serve
from services.node_agent.settings import NodeAgentSettings
from services.wire import model_archive, streams
from tests.support.control_plane import linked
from tests.support.eventually import eventually
from tests.support.leader import INTERVAL_S, Leader
from tests.support.nats_server import NatsServer
from tests.support.serving import serving

GIB = 1 << 30
READY, DRAINING = ReplicaStatus.STATE_READY, ReplicaStatus.STATE_DRAINING

_MODEL = """\
import json
import os
import time

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        self.instance = args["model_instance_name"]

    def execute(self, requests):
        time.sleep(0.3)
        said = json.dumps(
            {"pid": os.getpid(), "instance": self.instance, "environment": dict(os.environ)}
        )
        tensor = pb_utils.Tensor("SAID", np.array([said.encode()], dtype=np.object_))
        return [pb_utils.InferenceResponse([tensor]) for _ in requests]
"""

_CONFIG = """\
backend: "python"
output [ { name: "SAID" data_type: TYPE_STRING dims: [ 1 ] } ]
input [ { name: "ANY" data_type: TYPE_FP32 dims: [ 1 ] } ]
instance_group [ { count: 1 kind: KIND_GPU } ]
"""


class Node:
    """One agent with simulated GPUs, and who tells it what to run."""

    def __init__(self, directory: Path, stack: AsyncExitStack) -> None:
        self.state_dir = directory / "state"
        self.leader = Leader()
        self.digest = ""
        self._directory = directory
        self._stack = stack

    async def start(self) -> None:
        home = triton_setup.default_home()
        triton_setup.set_up(home)
        nats = self._stack.enter_context(NatsServer(self._directory / "nats"))
        await self._stack.enter_async_context(self.leader.serving())
        self.digest = await self._store(nats.url)
        await self._stack.enter_async_context(
            serving(
                serve,
                NodeAgentSettings,
                self._directory / "ready.json",
                node="node-1",
                nats_url=nats.url,
                autoscaler=self.leader.address,
                metrics=self.leader.address,
                state_dir=self.state_dir,
                triton_home=home,
                simulated_gpus=2,
                simulated_gpu_product="L4",
                resources={"tpu": 2},
                cpus=3,
                memory_bytes=GIB,
            )
        )

    async def _store(self, url: str) -> str:
        model = self._directory / "model"
        (model / "1").mkdir(parents=True)
        (model / "config.pbtxt").write_text(_CONFIG)
        (model / "1" / "model.py").write_text(_MODEL)
        out = io.BytesIO()
        model_archive.pack(model, out)
        digest = f"sha256:{hashlib.sha256(out.getvalue()).hexdigest()}"
        async with linked(url) as link:
            kept = await streams.models_store(link.jetstream)
            out.seek(0)
            await kept.put(streams.model_object_name(digest), out)
        return digest

    def assignment(self, number: int, **fields: object) -> Assignment:
        made = Assignment(
            replica_id=f"told-{number:08x}",
            deployment="deployments/told",
            generation=1,
            model_digest=self.digest,
            max_ongoing_requests=4,
            **fields,
        )
        made.request_timeout.FromSeconds(30)
        return made

    async def ask(self, replica_id: str, count: int) -> list[dict[str, object]]:
        """What a replica's Triton answers to requests at the same time."""
        record = self.state_dir / "replicas" / replica_id / "process.json"
        address = f"127.0.0.1:{json.loads(record.read_text())['port']}"
        async with tritonclient.InferenceServerClient(address) as client:
            tensor = tritonclient.InferInput("ANY", [1], "FP32")
            tensor.set_data_from_numpy(np.zeros(1, np.float32))
            results = await asyncio.gather(*(client.infer("told", [tensor]) for _ in range(count)))
        return [json.loads(result.as_numpy("SAID")[0]) for result in results]


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    async with AsyncExitStack() as stack:
        made = Node(tmp_path, stack)
        await made.start()
        yield made


async def test_a_replica_has_the_workers_threads_and_variables_of_its_assignment(
    node: Node,
) -> None:
    leader = node.leader
    resources = ReplicaResources(gpus=0.5, gpu_memory_bytes=6 * GIB, cpus=2.5, workers=2)
    assignment = node.assignment(
        1,
        resources=resources,
        gpu_uuids=["SIM-node-1-1"],
        environment={"MINE": "yes", "MKL_NUM_THREADS": "7"},
    )
    await leader.say([assignment], revision=1)
    await eventually(lambda: leader.first(READY), timeout_s=60)

    said: list[dict[str, object]] = []

    async def both_have_answered() -> bool:
        # Of requests that come one after the other, one instance may answer all.
        said.extend(await node.ask(assignment.replica_id, 4))
        return len({each["pid"] for each in said}) >= 2

    await eventually(both_have_answered, timeout_s=60)
    assert len({each["pid"] for each in said}) == 2
    assert len({each["instance"] for each in said}) == 2
    environment = said[0]["environment"]
    assert isinstance(environment, dict)
    assert environment["OMP_NUM_THREADS"] == "2"
    assert environment["MKL_NUM_THREADS"] == "7"
    assert environment["MINE"] == "yes"
    assert environment["FOREBAY_CPUS"] == "2.5"
    assert environment["CUDA_VISIBLE_DEVICES"] == ""

    first, second = leader.last.gpus
    assert (first.memory_used_bytes, second.memory_used_bytes) == (0, 6 * GIB)
    assert first.simulated
    assert second.uuid == "SIM-node-1-1"
    assert second.product_name == "Simulated L4"
    assert leader.last.gpu_message == "2 GPUs are simulated: replicas run on the CPU"


async def test_a_node_tells_what_it_has_and_every_change_of_a_replica_at_once(node: Node) -> None:
    """Reports are due every 30 s here: all that come before are there because of a change."""
    leader = node.leader
    await eventually(lambda: leader.reports)
    assert leader.last.cpus == 3
    assert leader.last.memory_bytes == GIB
    assert dict(leader.last.custom) == {"tpu": 2}

    told_s = time.monotonic()
    await leader.say([node.assignment(1, gpu_uuids=["SIM-node-1-0"])], revision=1)
    await eventually(lambda: leader.first(READY), timeout_s=60)
    ready_s, replica = leader.first(READY)
    startup_s = replica.startup_time.ToMilliseconds() / 1000
    # What is not Triton's own: from the word to Triton's start, and from the canary to the report.
    # A few hundredths of a second; a third of the interval shows that neither waited for a report.
    assert 0 < ready_s - told_s - startup_s < INTERVAL_S / 3
    assert leader.last.applied_revision == 1

    await leader.say([], revision=2)
    # Before the next report is due.
    await eventually(lambda: leader.first(DRAINING), timeout_s=INTERVAL_S * 2 / 3)
    await eventually(lambda: not leader.last.replicas, timeout_s=60)
    assert leader.last.applied_revision == 2


async def test_an_older_epoch_is_refused_and_the_report_says_so(node: Node) -> None:
    leader = node.leader
    await leader.say([], revision=1, epoch=5)
    await eventually(lambda: leader.last.applied_revision == 1)
    await leader.say([node.assignment(1)], revision=9, epoch=4)
    await eventually(lambda: "epoch 4, revision 9 are refused" in leader.last.gpu_message)
    assert not leader.last.replicas
    await leader.say([], revision=1, epoch=6)
    await eventually(lambda: "refused" not in leader.last.gpu_message)
