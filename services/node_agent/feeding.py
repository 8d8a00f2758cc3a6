"""Feeds one READY replica with requests and tasks, side by side, until its Triton is lost."""

import asyncio

import structlog

from forebay.v1.autoscaler_pb2 import Assignment
from services.node_agent.answers import AnswerPublisher
from services.node_agent.ending import end
from services.node_agent.intake import Intake
from services.node_agent.surroundings import Surroundings
from services.node_agent.tallies import Tallies
from services.node_agent.tasks.slots import Slots
from services.node_agent.tasks.task_attempts import Share
from services.node_agent.tasks.task_intake import LEAVE_S, TaskIntake
from services.node_agent.traces.replica_trace import ReplicaTrace
from services.node_agent.triton.triton_client import TritonClient
from services.wire.streams import ACK_WAIT_S

log = structlog.get_logger()


class Feeding:
    """What goes into one Triton."""

    def __init__(
        self,
        assignment: Assignment,
        trace: ReplicaTrace,
        client: TritonClient,
        around: Surroundings,
        tallies: Tallies,
        instances: int,
        after_loss: bool,
    ) -> None:
        """Takes nothing until `run`.

        Args:
            assignment: the replica.
            trace: what spans say of it.
            client: of its Triton.
            around: what all replicas of the node share.
            tallies: what is counted.
            instances: of the model.
            after_loss: the Triton before this one died under requests or tasks.
        """
        replica_id, node = assignment.replica_id, around.settings.node
        deployment, trace.address = trace.deployment, client.address
        self._slots = Slots(assignment.max_ongoing_requests, instances)
        if after_loss:
            self._slots.tasks_expected(around.clock.monotonic_s())
        self._requests = Intake(
            replica_id=replica_id,
            deployment=deployment,
            slots=self._slots,
            attempt_limit_s=assignment.request_timeout.ToMilliseconds() / 1000,
            ack_wait_s=around.settings.ack_wait_s,
            client=client,
            link=around.link,
            clock=around.clock,
            server_clock=around.server_clock,
            tallies=tallies,
            answers=AnswerPublisher(around.link, around.clock, node, replica_id),
            trace=trace,
        )
        self._tasks = TaskIntake(
            replica_id=replica_id,
            node=node,
            share=Share(deployment, assignment.max_ongoing_requests, assignment.resources.gpus),
            slots=self._slots,
            # Whoever submits the first task makes the consumer, with the wait of ACK_WAIT_S.
            ack_wait_s=min(around.settings.ack_wait_s, ACK_WAIT_S),
            client=client,
            link=around.link,
            ledger=around.ledger,
            clock=around.clock,
            server_clock=around.server_clock,
            tallies=tallies,
            usage=around.usage,
            give_up=self._requests.give_up,
            trace=trace,
        )

    @property
    def ongoing_count(self) -> int:
        """Requests and tasks inside Triton now."""
        return self._requests.ongoing_count + self._slots.tasks

    @property
    def answered_count(self) -> int:
        """Requests and tasks that Triton answered."""
        return self._requests.answered_count + self._tasks.answered_count

    @property
    def lost_count(self) -> int:
        """Requests and tasks that were inside when Triton, or the model's process, died."""
        return self._requests.lost_count + self._tasks.lost_count

    @property
    def excused(self) -> bool:
        """Whether Triton died of a task that had been in one that died before."""
        return self._tasks.excused

    async def run(self) -> str:
        """Pulls and runs requests and tasks until Triton must be started anew; returns why.

        What is ongoing then goes on: end Triton, `give_back`, `close`.
        """
        requests = asyncio.create_task(self._requests.run())
        tasks = asyncio.create_task(self._tasks.run())
        try:
            await asyncio.wait({requests, tasks}, return_when=asyncio.FIRST_COMPLETED)
            if tasks.done():
                tasks.result()
            return await requests
        finally:
            await end(requests, tasks)

    async def stop_pulling(self) -> None:
        """Takes nothing more, not even what was asked for."""
        self._tasks.stop_pulling()
        await self._requests.stop_pulling()

    def give_up(self, why: str) -> None:
        """Takes nothing more and has `run` end."""
        self._requests.give_up(why)

    def limit_attempts(self, attempt_limit_s: float) -> None:
        """Changes the longest an attempt at a request may run."""
        self._requests.limit_attempts(attempt_limit_s)

    async def give_back(self, timeout_s: float) -> None:
        """Waits until what was in a Triton that has ended is back in the queue."""
        await asyncio.gather(self._requests.give_back(timeout_s), self._tasks.give_back(timeout_s))

    async def drain(self, limit_s: float, leave_in_s: float | None) -> bool:
        """Takes no more and waits until nothing is ongoing; tasks that run on are given back.

        Args:
            limit_s: how long to wait.
            leave_in_s: when this process ends, if it does.

        Returns:
            Whether Triton has nothing left to finish. False: what it works on is for nobody.

        Raises:
            TimeoutError: if requests are ongoing after that.
        """
        tasks_s = limit_s if leave_in_s is None else min(limit_s, leave_in_s - LEAVE_S - 1)
        tasks = asyncio.create_task(self._drain_tasks(max(0.0, tasks_s)))
        try:
            async with asyncio.timeout(limit_s):
                await self._requests.drain()
        finally:
            all_run = await tasks
        return all_run

    async def close(self) -> None:
        """Ends the subscriptions and whatever is still ongoing."""
        await self._tasks.close()
        await self._requests.close()

    async def _drain_tasks(self, limit_s: float) -> bool:
        try:
            async with asyncio.timeout(limit_s):
                await self._tasks.drain()
        except TimeoutError:
            await self._tasks.give_back_running()
            return False
        return True
