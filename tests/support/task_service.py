"""A router on a nats-server, both real, with a client of TaskService; the test plays the agents."""

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from nats.js.api import StreamConfig

from forebay.v1 import task_pb2 as api
from forebay.v1.deployment_pb2 import Deployment
from forebay.v1.envelope_pb2 import OUTCOME_OK
from forebay.v1.inference_pb2 import InferRequest, InferResponse
from forebay.v1.task_pb2 import Task
from forebay.v1.task_pb2_grpc import TaskServiceStub
from forebay.v1.task_record_pb2 import TaskEnvelope
from services.router.main import serve
from services.router.settings import RouterSettings
from services.wire import streams as wire_streams
from services.wire.channels import open_channel
from services.wire.instants import timestamp
from services.wire.nats_link import NatsLink
from services.wire.tasks import states, streams
from services.wire.tasks.ledger import TaskLedger, task_ids
from tests.support.eventually import eventually
from tests.support.nats_server import NatsServer
from tests.support.serving import serving
from tests.support.task_ledger import ledger_at

PARENT = "deployments/echo"


def submission(word: bytes = b"12345678", model: str = "echo", **options: Any) -> Any:
    """A SubmitTaskRequest with options of the task."""
    request = InferRequest(model_name=model, raw_input_contents=[word])
    request.inputs.add(name="IN", datatype="UINT8", shape=[len(word)])
    return api.SubmitTaskRequest(request=request, task=Task(**options))


class TaskStation:
    """What a test of TaskService needs.

    Attributes:
        nats: the server.
        stub: the client.
        ledger: looks at what is kept.
        link: of the ledger.
        address: where the router listens.
    """

    def __init__(
        self,
        nats: NatsServer,
        stub: TaskServiceStub,
        ledger: TaskLedger,
        link: NatsLink,
        address: str,
    ) -> None:
        """Of parts that run."""
        self.nats = nats
        self.stub = stub
        self.ledger = ledger
        self.link = link
        self.address = address

    async def submit(self, tenant: str = "", **options: Any) -> Task:
        """Submits a task and returns it."""
        metadata = [("forebay-tenant", tenant)] if tenant else []
        answer = await self.stub.SubmitTask(submission(**options), metadata=metadata, timeout=60)
        task: Task = answer.task
        return task

    async def get(self, name: str, tenant: str = "") -> Task:
        """Looks a task up."""
        metadata = [("forebay-tenant", tenant)] if tenant else []
        request = api.GetTaskRequest(name=name)
        task: Task = (await self.stub.GetTask(request, metadata=metadata, timeout=60)).task
        return task

    async def submit_many(self, submissions: Iterable[Any], group: int = 50) -> list[Any]:
        """Submits tasks with one call; returns what became of each, by index."""
        wanted = list(submissions)

        async def messages() -> AsyncIterator[api.SubmitTasksRequest]:
            for begin in range(0, len(wanted), group):
                yield api.SubmitTasksRequest(tasks=wanted[begin : begin + group])

        told = [
            each
            async for answer in self.stub.SubmitTasks(messages(), timeout=60)
            for each in answer.submitted
        ]
        assert sorted(each.index for each in told) == list(range(len(wanted)))
        return sorted(told, key=lambda each: int(each.index))

    async def list_all(self, tenant: str = "", **filters: Any) -> list[Task]:
        """All tasks of a list, through all its pages."""
        metadata = [("forebay-tenant", tenant)] if tenant else []
        found: list[Task] = []
        token = ""
        while True:
            request = api.ListTasksRequest(page_token=token, **filters)
            page = await self.stub.ListTasks(request, metadata=metadata, timeout=60)
            found += page.tasks
            token = page.next_page_token
            if not token:
                return found

    async def deliver(self, deployment: str = "echo", priority: int = 2) -> Any:
        """Takes the next task of a lane as an agent does; returns the message."""
        subscription = await self.link.jetstream.pull_subscribe_bind(
            streams.consumer(deployment, priority), streams.TASKS
        )
        try:
            return (await subscription.fetch(1, timeout=30))[0]
        finally:
            await subscription.unsubscribe()

    async def end(self, task: Task, state: Task.State = Task.STATE_SUCCEEDED) -> bool:
        """Ends a task as an agent does, answering its own name, and takes it out of the queue."""
        ended = Task()
        ended.CopyFrom(task)
        ended.state = state
        ended.outcome = states.OUTCOMES.get(state, OUTCOME_OK)
        ended.end_time.GetCurrentTime()
        result = InferResponse(id=task.name) if state == Task.STATE_SUCCEEDED else None
        first = await self.ledger.finish(ended, result.SerializeToString() if result else b"")
        message = await self.ledger.queued(*task_ids(task.name))
        if message is not None:
            await self.ledger.remove_queued(message.sequence)
        return first

    async def envelope(self, task: Task) -> TaskEnvelope:
        """What waits in the queue of a task."""
        message = await self.ledger.queued(*task_ids(task.name))
        assert message is not None
        return TaskEnvelope.FromString(message.data)

    async def deploy(self, deployment_id: str) -> None:
        """Has a deployment, without replicas."""
        bucket = await wire_streams.deployments_bucket(self.link.jetstream)
        made = Deployment(name=f"deployments/{deployment_id}", create_time=timestamp(1.0))
        await bucket.put(f"spec.{deployment_id}", made.SerializeToString())

    async def limit(self, stream: str, max_bytes: int) -> None:
        """Gives a stream another size."""
        config = (await self.link.jetstream.stream_info(stream)).config
        kept = {key: value for key, value in vars(config).items() if value is not None}
        await self.link.jetstream.update_stream(StreamConfig(**{**kept, "max_bytes": max_bytes}))


@asynccontextmanager
async def task_station(directory: Path) -> AsyncIterator[TaskStation]:
    """A router and a nats-server, with the deployments `echo` and `other`."""
    with NatsServer(directory / "nats") as nats:
        async with (
            ledger_at(nats.url) as (ledger, link),
            serving(
                serve,
                RouterSettings,
                directory / "router.json",
                nats_url=nats.url,
                listen="127.0.0.1:0",
                drain_s=5,
            ) as addresses,
            open_channel(addresses["router"]) as channel,
        ):
            stub = TaskServiceStub(channel)
            station = TaskStation(nats, stub, ledger, link, addresses["router"])
            await station.deploy("echo")
            await station.deploy("other")

            async def knows() -> bool:
                return await _knows(stub)

            await eventually(knows, what="the router's knowing the deployments")
            yield station


async def _knows(stub: TaskServiceStub) -> bool:
    async def none() -> AsyncIterator[api.SubmitTasksRequest]:
        for model in ("echo", "other"):
            # Refused for its option only where the deployment is known.
            yield api.SubmitTasksRequest(tasks=[submission(model=model, max_retries=99)])

    told = [each async for answer in stub.SubmitTasks(none()) for each in answer.submitted]
    return all("max_retries" in each.message for each in told)
