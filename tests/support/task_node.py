"""One node agent with a real nats-server and Triton, and a submitter of tasks beside it."""

import asyncio
import hashlib
import io
import itertools
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from forebay.local import triton_setup
from forebay.v1.autoscaler_pb2 import Assignment
from forebay.v1.deployment_pb2 import Canary
from forebay.v1.inference_pb2 import InferRequest
from forebay.v1.node_pb2 import ReplicaStatus
from forebay.v1.task_pb2 import Task
from forebay.v1.task_record_pb2 import TaskEnvelope
from services.node_agent.main import serve
from services.node_agent.settings import NodeAgentSettings
from services.wire import model_archive, streams
from services.wire.instants import timestamp
from services.wire.nats_link import NatsLink
from services.wire.tasks.ledger import TaskLedger, task_name
from tests.support.chaos_model import write_chaos
from tests.support.eventually import eventually
from tests.support.leader import Leader
from tests.support.nats_server import NatsServer
from tests.support.serving import serving

ROOT = Path(__file__).resolve().parents[2]
DEPLOYMENT = "chaos"
READY = ReplicaStatus.STATE_READY


def body(word: str, deployment: str = DEPLOYMENT) -> bytes:
    """A request of the chaos model."""
    raw = word.encode()
    request = InferRequest(model_name=deployment)
    request.inputs.add(name="DO", datatype="BYTES", shape=[1])
    request.raw_input_contents.append(len(raw).to_bytes(4, "little") + raw)
    made: bytes = request.SerializeToString()
    return made


def said(task: Task) -> str:
    """What the model answered."""
    raw = task.result.raw_output_contents[0]
    return bytes(raw[4 : 4 + int(np.frombuffer(raw[:4], "<u4")[0])]).decode()


@asynccontextmanager
async def _connected(link: NatsLink) -> AsyncIterator[None]:
    stopping = asyncio.Event()
    running = asyncio.ensure_future(link.run(stopping))
    try:
        await eventually(lambda: link.connected)
        yield
    finally:
        stopping.set()
        await running
        await link.close()


class TaskNode:
    """One node, told what to run, and a ledger to submit to it.

    Attributes:
        nats: the server.
        leader: tells the agent what to run, and hears what it reports.
        ledger: of the submitter.
        link: of the submitter.
        settings: of the agent, to start another.
    """

    def __init__(self, directory: Path, stack: AsyncExitStack) -> None:
        self.nats = NatsServer(directory / "nats")
        self.leader = Leader()
        self.ready_file = directory / "ready.json"
        self.settings: dict[str, Any] = {}
        self._directory = directory
        self._stack = stack
        self._numbers = itertools.count(1)

    async def start(self, model: str = "", in_process: bool = True, **settings: Any) -> None:
        """Starts nats-server, the leader and, in this process, the agent."""
        home = triton_setup.default_home()
        triton_setup.set_up(home)
        self._stack.enter_context(self.nats)
        await self._stack.enter_async_context(self.leader.serving())
        self.link = NatsLink("test", self.nats.url)
        self.ledger = TaskLedger(self.link)
        await self._stack.enter_async_context(_connected(self.link))
        self.settings = {
            "node": "node-1",
            "nats_url": self.nats.url,
            "autoscaler": self.leader.address,
            "metrics": self.leader.address,
            "state_dir": self._directory / "state",
            "triton_home": home,
            **settings,
        }
        self._digest = await self._store(model)
        if in_process:
            await self._stack.enter_async_context(self.agent())

    @asynccontextmanager
    async def agent(self) -> AsyncIterator[None]:
        """Runs the agent in this process until the block ends."""
        async with serving(serve, NodeAgentSettings, self.ready_file, **self.settings):
            yield

    @contextmanager
    def agent_process(self) -> Iterator["subprocess.Popen[bytes]"]:
        """Runs the agent as a process of its own, which is told to stop when the block ends."""
        flags = [
            part
            for key, value in self.settings.items()
            for part in (f"--{key.replace('_', '-')}", str(value))
        ]
        command = [sys.executable, "-m", "services.node_agent.main", "--log-format", "json"]
        with (self._directory / "agent.log").open("ab") as log:
            process = subprocess.Popen([*command, *flags], cwd=ROOT, stdout=log, stderr=log)
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(timeout=60)
            finally:
                process.kill()
                process.wait()

    async def run_replica(self, slots: int = 4, request_timeout_s: int = 30) -> str:
        """Has the agent run one replica and waits until it is ready; returns its id."""
        replica_id = f"{DEPLOYMENT}-{next(self._numbers):08x}"
        made = Assignment(
            replica_id=replica_id,
            deployment=f"deployments/{DEPLOYMENT}",
            generation=1,
            model_digest=self._digest,
            max_ongoing_requests=slots,
        )
        made.canary.mode = Canary.MODE_OFF
        made.request_timeout.FromSeconds(request_timeout_s)
        await self.leader.say([made], revision=next(self._numbers))
        await eventually(lambda: self.status(replica_id).state == READY, timeout_s=90)
        return replica_id

    def status(self, replica_id: str) -> ReplicaStatus:
        """What was last reported of a replica.

        Raises:
            LookupError: if nothing was.
        """
        return next(
            (replica for replica in self.leader.last.replicas if replica.replica_id == replica_id),
            ReplicaStatus(),
        )

    async def submit(self, word: str, **options: Any) -> str:
        """Submits a task; returns its id."""
        envelope = self.envelope(word, **options)
        await self.ledger.enqueue(envelope)
        self.ledger.tell_waiting(envelope.deployment, envelope.task.priority)
        return str(envelope.task_id)

    def envelope(
        self,
        word: str,
        priority: Task.Priority = Task.PRIORITY_NORMAL,
        max_retries: int = 3,
        min_backoff_s: float = 0.1,
        attempt_timeout_s: float = 30,
        ttl_s: float = 600,
        tenant: str = "default",
        batch: str = "",
        task_id: str = "",
        callback_url: str = "",
        traceparent: str = "",
    ) -> TaskEnvelope:
        """A task as it is stored."""
        now_s = time.time()
        task_id = task_id or f"t{next(self._numbers):08d}"
        task = Task(
            name=task_name(DEPLOYMENT, task_id),
            priority=priority,
            batch=batch,
            tenant=tenant,
            max_retries=max_retries,
            create_time=timestamp(now_s),
            expire_time=timestamp(now_s + ttl_s),
            callback_url=callback_url,
        )
        task.min_backoff.FromNanoseconds(int(min_backoff_s * 1e9))
        task.max_backoff.FromSeconds(60)
        task.attempt_timeout.FromNanoseconds(int(attempt_timeout_s * 1e9))
        task.ttl.FromNanoseconds(int(ttl_s * 1e9))
        task.result_ttl.FromSeconds(3600)
        return TaskEnvelope(
            task_id=task_id,
            deployment=DEPLOYMENT,
            task=task,
            body=body(word),
            traceparent=traceparent,
        )

    async def ended(self, task_id: str, timeout_s: float = 60) -> Task:
        """The task once it has ended."""

        async def look() -> Task:
            found = await self.ledger.ended(DEPLOYMENT, task_id)
            assert found is not None
            return found

        return await eventually(look, timeout_s=timeout_s, what=f"the end of {task_id}")

    async def all_ended(self, task_ids: list[str], timeout_s: float = 60) -> list[Task]:
        """The tasks once all have ended."""
        return list(await asyncio.gather(*(self.ended(t, timeout_s) for t in task_ids)))

    async def queue_empty(self) -> None:
        """Waits until no task is left in the queue."""

        async def look() -> str:
            info = await self.link.jetstream.stream_info("FOREBAY_TASKS")
            assert info.state.messages == 0
            return "empty"

        await eventually(look)

    async def _store(self, model: str) -> str:
        more = {"model": model} if model else {}
        write_chaos(self._directory / "chaos", **more)
        out = io.BytesIO()
        model_archive.pack(self._directory / "chaos" / "model", out)
        digest = f"sha256:{hashlib.sha256(out.getvalue()).hexdigest()}"
        kept = await streams.models_store(self.link.jetstream)
        out.seek(0)
        await kept.put(streams.model_object_name(digest), out)
        return digest
