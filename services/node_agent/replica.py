"""One replica: an assignment made real by a Triton, watched, restarted, drained.

Its state moves by the table in replica_states; restarts follow restart_policy.
"""

import asyncio

import nats.errors
import nats.js.errors
import structlog
from google.protobuf.duration_pb2 import Duration

from forebay.v1.autoscaler_pb2 import Assignment
from forebay.v1.deployment_pb2 import Canary
from forebay.v1.node_pb2 import ReplicaStatus
from services.node_agent import canary, replica_environment, replica_states, volumes
from services.node_agent.ending import end
from services.node_agent.feeding import Feeding
from services.node_agent.housekeeping import describe, forget_dead_regions
from services.node_agent.instance_groups import at_work_at_once
from services.node_agent.model_cache import ModelError
from services.node_agent.preparation import prepare
from services.node_agent.python_environment import RequirementsError
from services.node_agent.replica_log import read_tail
from services.node_agent.restart_policy import PROVEN_AFTER_S, Failures
from services.node_agent.surroundings import Surroundings
from services.node_agent.tallies import Tallies
from services.node_agent.triton_client import TritonClient, TritonError
from services.node_agent.triton_log import last_words
from services.node_agent.triton_process import (
    TritonExitedError,
    TritonProcess,
    remove_shared_memory,
)
from services.wire import names
from services.wire.triton_stubs import service_pb2 as triton

log = structlog.get_logger()

CANARY_TIMEOUT_S = 60.0
GIVE_BACK_S = 2.0
NATS_RETRY_S = 0.1
NATS_LOOK_S = 0.02

_NATS_ERRORS = (nats.errors.Error, nats.js.errors.Error)


class ReplicaFailedError(Exception):
    """The replica cannot serve; the text says why, for a person."""


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
        self._leaving = asyncio.Event()
        self._leave_in_s: float | None = None
        self._process: TritonProcess | None = None
        self._feeding: Feeding | None = None
        self._failures = Failures()
        self._start_count = 0
        self._started_s: float | None = None
        self._startup_s = 0.0
        self._resident_bytes = 0
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
            await self._stop_process(graceful=idle)
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
                await self._start()
                self._note_startup()
                await self._until_nats()
                ready_s = clock.monotonic_s()
                self._become(replica_states.READY, "")
                await self._serve_until_lost()
            except _NATS_ERRORS as error:
                # Nothing is wrong with the replica, so its Triton stays.
                await self._wait_for_nats(str(error) or type(error).__name__)
                continue
            except (ReplicaFailedError, ModelError, RequirementsError, OSError) as error:
                if isinstance(error, ModelError) and not link.same_connection(connections):
                    await self._wait_for_nats(str(error))
                    continue
                reason = str(error)
            await self._stop_process(graceful=False)
            ready_for_s = 0.0 if ready_s is None else clock.monotonic_s() - ready_s
            self._failures = self._failures.after_failure(
                proven=self._answered_count > 0 or ready_for_s >= PROVEN_AFTER_S,
                under_requests=self._died_under_requests,
                excused=self._excused,
            )
            await self._rest(reason)

    async def _wait_for_nats(self, reason: str) -> None:
        """Waits until NATS can be reached, and a moment in case it can be and refuses."""
        log.warning("replica.no_nats", replica=self.assignment.replica_id, reason=reason)
        self._become(replica_states.STARTING, f"waiting for NATS: {reason}")
        await asyncio.sleep(NATS_RETRY_S)
        await self._until_nats()

    async def _until_nats(self) -> None:
        while not self._around.link.connected:
            self.message = "waiting for NATS"
            await asyncio.sleep(NATS_LOOK_S)

    async def _rest(self, reason: str) -> None:
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
        process = self._process
        if process is None or not process.is_alive():
            process = self._process = TritonProcess.adopt(self.directory)
        if process is None:
            process = await self._launch()
            await self._wait_listening(process)
        else:
            log.info("replica.adopted", replica=self.assignment.replica_id, pid=process.record.pid)
        client = TritonClient(process.address, self.deployment)
        try:
            await self._pass_canary(client)
        finally:
            await client.close()

    async def _launch(self) -> TritonProcess:
        around, assignment = self._around, self.assignment
        environment = await prepare(
            assignment, self.directory, around.models, around.environments, self._say
        )
        mounts = await asyncio.to_thread(
            volumes.mounts_of, assignment.volumes, around.settings.offered_volumes
        )
        await asyncio.to_thread(volumes.link, self.directory, mounts)
        self._start_count += 1
        self._started_s = around.clock.monotonic_s()
        self._say("Triton is loading the model")
        starting = asyncio.ensure_future(
            asyncio.to_thread(
                TritonProcess.start,
                around.home,
                self.directory,
                assignment.replica_id,
                self.deployment,
                environment,
                replica_environment.visible_gpus(assignment),
                replica_environment.variables(assignment, mounts),
            )
        )
        try:
            self._process = await asyncio.shield(starting)
        except asyncio.CancelledError:
            # The thread goes on and starts it all the same: someone must know, to stop it.
            self._process = await starting
            raise
        return self._process

    def _note_startup(self) -> None:
        """Keeps how long its Triton took from its start until now, unless it was ready before."""
        process = self._process
        if process is None:
            return
        if self._started_s is not None:
            process.note_startup(self._around.clock.monotonic_s() - self._started_s)
            self._started_s = None
        self._startup_s = process.record.startup_s

    async def _wait_listening(self, process: TritonProcess) -> None:
        timeout_s = self._around.settings.startup_timeout_s
        try:
            await process.wait_listening(timeout_s)
        except TritonExitedError:
            raise ReplicaFailedError(f"Triton did not start: {await self._last_words()}") from None
        except TimeoutError:
            raise ReplicaFailedError(
                f"Triton did not load the model within {timeout_s:g} s (startup_timeout_s): "
                f"{await self._last_words()}"
            ) from None

    async def _pass_canary(self, client: TritonClient) -> None:
        try:
            async with asyncio.timeout(CANARY_TIMEOUT_S):
                if not await client.is_ready():
                    raise ReplicaFailedError(
                        f"Triton did not load the model: {await self._last_words()}"
                    )
                config, metadata = await client.config(), await client.metadata()
                if self.assignment.canary.mode != Canary.MODE_OFF:
                    self._say("canary inference")
                    parsed = triton.ModelConfigResponse.FromString(config).config
                    await client.infer(canary.zeros_request(self.deployment, parsed))
        except (TritonError, TimeoutError, canary.UnknownTypeError) as error:
            said = error.message if isinstance(error, TritonError) else str(error)
            raise ReplicaFailedError(
                f"the canary inference failed: {said or 'no answer in 60 s'}. If the model does "
                "not take zeros, write `canary: off` in the deployment's file"
            ) from error
        self._description = {"config": config, "metadata": metadata}

    async def _serve_until_lost(self) -> None:
        around, process = self._around, self._process
        assert process is not None
        client = TritonClient(process.address, self.deployment)
        config = triton.ModelConfigResponse.FromString(self._description["config"]).config
        self._feeding = Feeding(
            self.assignment,
            self.deployment,
            client,
            around,
            self.tallies,
            at_work_at_once(config),
            self._after_loss,
        )
        feeding = asyncio.create_task(self._feeding.run())
        exited = asyncio.create_task(process.wait_exit())
        beside = [
            asyncio.create_task(describe(around.link, self.deployment, self._description)),
            asyncio.create_task(forget_dead_regions(client)),
        ]
        try:
            await asyncio.wait({feeding, exited}, return_when=asyncio.FIRST_COMPLETED)
            if exited.done():
                await self._feeding.stop_pulling()
                reason = f"Triton died: {await self._last_words()}"
            else:
                reason = feeding.result()
                await process.stop(graceful=False)
            # Their calls fail now that Triton is gone, which gives requests and tasks back.
            await self._feeding.give_back(GIVE_BACK_S)
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
        idle = True
        if self._feeding is not None:
            self._become(replica_states.DRAINING, "finishing ongoing requests and tasks")
            limit_s = self.assignment.request_timeout.ToSeconds() + 5
            try:
                idle = await self._feeding.drain(limit_s, self._leave_in_s)
            except TimeoutError:
                log.warning("replica.drain_timeout", replica=self.assignment.replica_id)
        else:
            self._become(replica_states.DRAINING, "")
        return idle

    async def _stop_process(self, graceful: bool = True) -> None:
        process, self._process = self._process, None
        if process is not None:
            await process.stop(graceful)
        remove_shared_memory(self.assignment.replica_id)

    async def _last_words(self) -> str:
        text = await asyncio.to_thread(read_tail, self.directory / "triton.log", 200)
        return last_words(text) or "it wrote nothing to its log"

    def _say(self, message: str) -> None:
        self.message = message
        log.info("replica.step", replica=self.assignment.replica_id, step=message)

    def _become(self, state: replica_states.State, message: str) -> None:
        self.state = replica_states.step(self.state, state)
        self.message = message
        log.info(
            "replica.state",
            replica=self.assignment.replica_id,
            state=ReplicaStatus.State.Name(state),
        )
        self._around.changed()

    async def measure(self) -> None:
        """Measures its Triton's memory and keeps its log within bounds, off the event loop."""
        process = self._process
        if process is None:
            self._resident_bytes = 0
            return
        self._resident_bytes = await asyncio.to_thread(process.resident_bytes)
        await asyncio.to_thread(process.bound_log)

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
            resident_memory_bytes=self._resident_bytes,
        )
