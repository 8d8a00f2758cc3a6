"""One replica: an assignment made real by a Triton, watched, restarted, drained.

Its state moves by the table in replica_states; restarts follow restart_policy.
"""

import asyncio
from collections.abc import Mapping

import nats.errors
import nats.js.errors
import structlog
from google.protobuf.duration_pb2 import Duration

from forebay.v1.autoscaler_pb2 import Assignment
from forebay.v1.deployment_pb2 import Canary
from forebay.v1.node_pb2 import ReplicaStatus
from services.node_agent import losing, replica_states
from services.node_agent.ending import end
from services.node_agent.feeding import Feeding
from services.node_agent.gpus.trouble import GpuTrouble
from services.node_agent.housekeeping import describe, forget_dead_regions
from services.node_agent.models.model_cache import ModelError
from services.node_agent.models.python_environment import RequirementsError
from services.node_agent.proving import NotLoadedError, NotProvenError, prove, wait_listening
from services.node_agent.restart_policy import PROVEN_AFTER_S, Failures
from services.node_agent.runtime import (
    Measured,
    Order,
    RuntimeAwayError,
    StartRefusedError,
    Triton,
)
from services.node_agent.surroundings import Surroundings
from services.node_agent.tallies import Tallies
from services.node_agent.traces.replica_trace import ReplicaTrace
from services.node_agent.triton.instance_groups import at_work_at_once
from services.node_agent.triton.triton_client import TritonClient
from services.wire import names
from services.wire.triton_stubs import service_pb2 as protocol

log = structlog.get_logger()

NATS_RETRY_S = 0.1
NATS_LOOK_S = 0.02

_NATS_ERRORS = (nats.errors.Error, nats.js.errors.Error)


class ReplicaFailedError(Exception):
    """The replica cannot serve; the text says why, for a person."""


_FAILURES = (
    ReplicaFailedError,
    StartRefusedError,
    NotProvenError,
    ModelError,
    RequirementsError,
    OSError,
)


class Replica:
    """One replica of a deployment on this node."""

    def __init__(self, assignment: Assignment, around: Surroundings) -> None:
        """A replica that starts when it is run."""
        self.assignment = assignment
        self.deployment = names.deployment_id(assignment.deployment)
        self.directory = around.settings.state_dir.resolve() / "replicas" / assignment.replica_id
        self.state = replica_states.STARTING
        self.message = ""
        self.tallies = Tallies()
        self._around = around
        self._trace = ReplicaTrace(assignment, self.deployment, around.settings.node, around.clock)
        self._leaving = asyncio.Event()
        self._leave_in_s: float | None = None
        self._triton: Triton | None = None
        self._feeding: Feeding | None = None
        self._gpu_trouble = GpuTrouble(assignment.gpu_uuids)
        self._failures = Failures()
        self._start_count = 0
        self._started_s: float | None = None
        self._startup_s = 0.0
        self._image_id = ""
        self._measured = Measured()
        self._answered_count = 0
        self._died_under_requests = False
        self._after_loss = False
        self._excused = False
        self._description: dict[str, bytes] = {}

    @property
    def leaving(self) -> bool:
        """Whether it is on its way out."""
        return self._leaving.is_set()

    @property
    def triton(self) -> Triton | None:
        """Its Triton, if it has one."""
        return self._triton

    @property
    def process_ids(self) -> tuple[int, ...]:
        """Ids of its Triton's processes on this machine, as measured last."""
        return self._measured.process_ids

    @property
    def ongoing_count(self) -> int:
        """Requests and tasks inside its Triton now."""
        return self._feeding.ongoing_count if self._feeding else 0

    def limit_attempts(self, request_timeout: Duration) -> None:
        """Changes the longest an attempt may run; the replica goes on."""
        if self.assignment.request_timeout == request_timeout:
            return
        self.assignment.request_timeout.CopyFrom(request_timeout)
        self._write_assignment()
        if self._feeding is not None:
            self._feeding.limit_attempts(request_timeout.ToMilliseconds() / 1000)

    def _write_assignment(self) -> None:
        (self.directory / "assignment.bin").write_bytes(self.assignment.SerializeToString())

    def note_gpus(self, unusable: Mapping[str, str]) -> None:
        """Has it give back what it holds, and rest, while one of its GPUs must not be used.

        Args:
            unusable: what is wrong with each such GPU of the node, by UUID.
        """
        if self._gpu_trouble.tell(unusable) and self._feeding is not None:
            self._feeding.give_up(self._gpu_trouble.reason)

    def leave(self, within_s: float | None = None) -> None:
        """Has the replica finish what is ongoing and stop.

        Args:
            within_s: when its agent ends, if it does: tasks that run longer are given back before.
        """
        self._leave_in_s = within_s
        self._leaving.set()

    async def run(self) -> None:
        """Lives until told to leave, then drains and stops its Triton."""
        self.directory.mkdir(parents=True, exist_ok=True)
        self._write_assignment()
        life = asyncio.create_task(self._live())
        leave = asyncio.create_task(self._leaving.wait())
        idle = True
        try:
            await asyncio.wait({life, leave}, return_when=asyncio.FIRST_COMPLETED)
            if life.done():
                life.result()
            idle = await self._drain()
        finally:
            for task in (life, leave):
                task.cancel()
            await asyncio.gather(life, leave, return_exceptions=True)
            await self._stop_triton(graceful=idle)
            self._become(replica_states.DRAINING, "")
            self._become(replica_states.STOPPED, "")
            (self.directory / "assignment.bin").unlink(missing_ok=True)

    async def _live(self) -> None:
        clock, link = self._around.clock, self._around.link
        while True:
            ready_s = None
            connections = link.connections
            self._after_loss = self._died_under_requests
            self._answered_count, self._died_under_requests = 0, False
            self._excused = False
            try:
                await self._gpu_trouble.guard(self._start)
                self._note_startup()
                await self._until_nats()
                ready_s = clock.monotonic_s()
                self._become(replica_states.READY, "")
                await self._serve_until_lost()
            except _NATS_ERRORS as error:
                # Nothing is wrong with the replica, so its Triton stays.
                await self._wait_for_nats(str(error) or type(error).__name__)
                continue
            except RuntimeAwayError as error:
                # Nothing is wrong with the replica here, either.
                await self._wait_for_runtime(str(error))
                continue
            except _FAILURES as error:
                if isinstance(error, ModelError) and not link.same_connection(connections):
                    await self._wait_for_nats(str(error))
                    continue
                reason = str(error)
            await self._stop_triton(graceful=False)
            if self._gpu_trouble.reason:
                await self._wait_for_gpus()
                continue
            ready_for_s = 0.0 if ready_s is None else clock.monotonic_s() - ready_s
            self._failures = self._failures.after_failure(
                proven=self._answered_count > 0 or ready_for_s >= PROVEN_AFTER_S,
                under_requests=self._died_under_requests,
                excused=self._excused,
            )
            await self._rest(reason)

    async def _wait_for_gpus(self) -> None:
        """Rests while one of its GPUs must not be used: until it is moved, or the GPU is back."""
        self._become(replica_states.FAILED, self._gpu_trouble.reason)
        await self._gpu_trouble.over()
        self._become(replica_states.STARTING, "starting again: its GPU is back")

    async def _wait_for_nats(self, reason: str) -> None:
        """Waits until NATS can be reached, and a moment in case it can be and refuses."""
        log.warning("replica.no_nats", replica=self.assignment.replica_id, reason=reason)
        self._become(replica_states.STARTING, f"waiting for NATS: {reason}")
        await asyncio.sleep(NATS_RETRY_S)
        await self._until_nats()

    async def _wait_for_runtime(self, reason: str) -> None:
        log.warning("replica.no_runtime", replica=self.assignment.replica_id, reason=reason)
        self._become(replica_states.STARTING, f"waiting to be started: {reason}")
        await self._around.runtime.wait_usable()

    async def _until_nats(self) -> None:
        while not self._around.link.connected:
            self.message = "waiting for NATS"
            await asyncio.sleep(NATS_LOOK_S)

    async def _rest(self, reason: str) -> None:
        self._trace.failed(reason)
        wait_s = self._failures.wait_s(self._around.settings.failure_retry_s)
        log.warning(
            "replica.failed",
            replica=self.assignment.replica_id,
            failures=self._failures.own + self._failures.under_requests,
            retry_in_s=wait_s,
            reason=reason,
        )
        if self._failures.broken:
            self._become(replica_states.FAILED, reason)
        else:
            self._become(replica_states.STARTING, f"starting again in {wait_s:g} s: {reason}")
        await asyncio.sleep(wait_s)
        self._become(replica_states.STARTING, f"starting again after: {reason}")

    async def _start(self) -> None:
        triton = self._triton
        if triton is None or not triton.is_alive():
            triton = self._triton = await self._around.runtime.adopt(self.directory)
        if triton is None:
            triton = await self._launch()
        else:
            log.info("replica.adopted", replica=self.assignment.replica_id, at=triton.address)
        timeout_s = self._around.settings.startup_timeout_s
        await wait_listening(triton, timeout_s, self.directory)
        self._image_id = triton.image_id
        client = self._client(triton)
        infers = self.assignment.canary.mode != Canary.MODE_OFF
        try:
            self._description = await prove(client, self.deployment, infers, self._say)
        except NotLoadedError as error:
            raise NotProvenError(await losing.told(str(error), triton, self.directory)) from error
        finally:
            await client.close()

    async def _launch(self) -> Triton:
        around, assignment = self._around, self.assignment
        self._say("fetching the model")
        model = await around.models.fetch(assignment.model_digest)
        order = Order(assignment, self.deployment, self.directory, model, self._say)
        launch = await around.runtime.prepare(order)
        self._start_count += 1
        self._started_s = around.clock.monotonic_s()
        self._say("Triton is loading the model")
        starting = asyncio.ensure_future(launch())
        try:
            self._triton = await asyncio.shield(starting)
        except asyncio.CancelledError:
            # It goes on and is started all the same: someone must know, to stop it.
            self._triton = await starting
            raise
        return self._triton

    def _client(self, triton: Triton) -> TritonClient:
        key, shares_memory = triton.access_key, triton.shares_memory
        return TritonClient(triton.address, self.deployment, key, shares_memory)

    def _note_startup(self) -> None:
        """Keeps how long its Triton took from its start until now, unless it was ready before."""
        triton = self._triton
        if triton is None:
            return
        if self._started_s is not None:
            triton.note_startup(self._around.clock.monotonic_s() - self._started_s)
            self._started_s = None
        self._startup_s = triton.startup_s

    async def _serve_until_lost(self) -> None:
        around, triton = self._around, self._triton
        assert triton is not None
        client = self._client(triton)
        config = protocol.ModelConfigResponse.FromString(self._description["config"]).config
        self._feeding = Feeding(
            self.assignment,
            self._trace,
            client,
            around,
            self.tallies,
            at_work_at_once(config),
            self._after_loss,
        )
        feeding = asyncio.create_task(self._feeding.run())
        exited = asyncio.create_task(triton.wait_exit())
        beside = [
            asyncio.create_task(describe(around.link, self.deployment, self._description)),
            asyncio.create_task(forget_dead_regions(client)),
        ]
        try:
            await asyncio.wait({feeding, exited}, return_when=asyncio.FIRST_COMPLETED)
            if exited.done():
                exited.result()
                await self._feeding.stop_pulling()
                reason = await losing.told("Triton died", triton, self.directory)
            else:
                reason = "; ".join(filter(None, (feeding.result(), await triton.why_ended())))
            await losing.end_under_requests(triton, client, self._feeding)
            self._died_under_requests = self._feeding.lost_count > 0
            self._excused = self._feeding.excused
            raise ReplicaFailedError(reason)
        finally:
            await end(feeding, exited, *beside)
            self._answered_count = self._feeding.answered_count
            await self._feeding.close()
            self._feeding = None
            await client.close()

    async def _drain(self) -> bool:
        """Finishes what is ongoing; False if Triton works on what was given back."""
        if self._feeding is None:
            self._become(replica_states.DRAINING, "")
            return True
        self._become(replica_states.DRAINING, "finishing ongoing requests and tasks")
        limit_s = self.assignment.request_timeout.ToSeconds() + 5
        try:
            return await self._feeding.drain(limit_s, self._leave_in_s)
        except TimeoutError:
            log.warning("replica.drain_timeout", replica=self.assignment.replica_id)
            return True

    async def _stop_triton(self, graceful: bool = True) -> None:
        if self._triton is not None:
            # Forgotten once it has ended: whoever is cancelled here leaves it to the next to end.
            await self._triton.stop(graceful)
            self._triton = None

    def _say(self, message: str) -> None:
        self.message = message
        self._trace.say(message)
        log.info("replica.step", replica=self.assignment.replica_id, step=message)

    def _become(self, state: replica_states.State, message: str) -> None:
        self.state = replica_states.step(self.state, state)
        self.message = message
        self._trace.become(state, message)
        name = ReplicaStatus.State.Name(state)
        log.info("replica.state", replica=self.assignment.replica_id, state=name)
        self._around.changed()

    def note_measured(self, measured: Measured) -> None:
        """Keeps what was found of its Triton."""
        self._measured = measured

    def status(self) -> ReplicaStatus:
        """Its state, complete."""
        startup = Duration()
        startup.FromMilliseconds(int(self._startup_s * 1000))
        return ReplicaStatus(
            replica_id=self.assignment.replica_id,
            deployment=self.assignment.deployment,
            generation=self.assignment.generation,
            gpu_uuids=self.assignment.gpu_uuids,
            gpus=self.assignment.resources.gpus,
            state=self.state,
            message=self.message,
            max_ongoing_requests=self.assignment.max_ongoing_requests,
            ongoing_count=self.ongoing_count,
            attempt_counts=self.tallies.attempts,
            start_count=self._start_count,
            startup_time=startup if self._startup_s else None,
            queue_wait=self.tallies.queue_wait.to_proto(),
            service_time=self.tallies.service_time.to_proto(),
            resident_memory_bytes=self._measured.resident_bytes,
            image_id=self._image_id,
        )
