"""Tasks while agents, nats-server or the room for results go away under them."""

import dataclasses
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from forebay.v1.node_pb2 import ReplicaStatus
from forebay.v1.task_pb2 import Task
from services.wire.stored_publisher import StreamFullError
from services.wire.tasks import streams
from tests.support.eventually import eventually
from tests.support.otlp_receiver import OtlpReceiver
from tests.support.task_model import Notes
from tests.support.task_node import DEPLOYMENT, TaskNode, said

ACK_WAIT_S = 10.0
LONG_ACK_WAIT_S = 600.0


@pytest.fixture
def notes(tmp_path: Path) -> Notes:
    return Notes(tmp_path / "notes")


@pytest.fixture
async def node(tmp_path: Path, notes: Notes) -> AsyncIterator[TaskNode]:
    """Without an agent."""
    async with AsyncExitStack() as stack:
        made = TaskNode(tmp_path, stack)
        await made.start(notes.model, in_process=False, drain_s=5.0)
        yield made


async def test_a_task_survives_the_death_of_its_agent(node: TaskNode, notes: Notes) -> None:
    with node.agent_process() as agent:
        await node.run_replica()
        task_id = await node.submit("hold:it", max_retries=0)
        await eventually(lambda: notes.seen == ["hold:it"])
        agent.kill()
        agent.wait()
    with node.agent_process():
        notes.let_go("it")
        task = await node.ended(task_id, timeout_s=ACK_WAIT_S + 60)
        # That its agent died is no fault of the task.
        assert (task.state, task.attempt_count) == (Task.STATE_SUCCEEDED, 1)
        await node.queue_empty()


async def test_a_task_that_runs_on_is_given_back_when_its_agent_ends(
    node: TaskNode, notes: Notes
) -> None:
    await streams.ensure(node.link.jetstream)
    await streams.ensure_consumer(
        node.link.jetstream, DEPLOYMENT, Task.PRIORITY_NORMAL, LONG_ACK_WAIT_S
    )
    # It is there, and is not to be made as usual.
    node.ledger._consumers.add((DEPLOYMENT, Task.PRIORITY_NORMAL))
    async with node.agent():
        await node.run_replica()
        task_id = await node.submit("hold:it", max_retries=0, attempt_timeout_s=3600)
        await eventually(lambda: notes.seen == ["hold:it"])
    known = await node.ledger.progress(DEPLOYMENT, task_id)
    assert (known.delivery_count, known.failed_count, known.alone) == (1, 0, False)
    async with node.agent():
        await node.run_replica()
        # Not when the ack wait is over.
        await eventually(lambda: len(notes.seen) == 2, timeout_s=LONG_ACK_WAIT_S / 10)
        notes.let_go("it")
        task = await node.ended(task_id)
        assert (task.state, task.attempt_count) == (Task.STATE_SUCCEEDED, 1)


async def test_tasks_survive_a_nats_server_that_is_killed_again_and_again(
    node: TaskNode, notes: Notes
) -> None:
    async with node.agent():
        await node.run_replica(slots=4)
        ids = [await node.submit(f"wait:0.01{number:04d}") for number in range(300)]
        for _ in range(3):
            done = len(notes.seen)
            await eventually(lambda done=done: len(notes.seen) > done + 40, timeout_s=60)
            node.nats.kill()
            node.nats.start()
            connections = node.link.connections
            await eventually(lambda c=connections: not node.link.same_connection(c), timeout_s=30)
            await eventually(lambda: node.link.connected)
        tasks = await node.all_ended(ids, timeout_s=60)
        assert [said(task) for task in tasks] == [f"wait:0.01{n:04d}" for n in range(300)]
        assert {task.state for task in tasks} == {Task.STATE_SUCCEEDED}
        await node.queue_empty()
        info = await node.link.jetstream.stream_info(streams.ENDED)
        assert info.state.messages == 300


async def test_a_replica_outlives_many_tasks_that_kill_it(node: TaskNode) -> None:
    async with node.agent():
        replica = await node.run_replica(slots=8)
        ids = [await node.submit("exit", max_retries=0) for _ in range(8)]
        tasks = await node.all_ended(ids, timeout_s=150)
        assert {task.state for task in tasks} == {Task.STATE_FAILED}
        assert [task.attempt_count for task in tasks] == [1] * 8
        assert said(await node.ended(await node.submit("still here"))) == "still here"
        assert node.status(replica).state != ReplicaStatus.STATE_FAILED
        await node.queue_empty()


async def test_a_result_waits_until_there_is_room_for_it(node: TaskNode, notes: Notes) -> None:
    js = node.link.jetstream
    config = (await js.stream_info(streams.ENDED)).config
    await js.update_stream(dataclasses.replace(config, max_bytes=1))
    async with node.agent():
        await node.run_replica()
        ids = [await node.submit(f"word {number}") for number in range(5)]
        await eventually(lambda: len(notes.seen) == 5)
        filler = node.envelope("filler").task
        filler.state = Task.STATE_CANCELLED
        filler.end_time.GetCurrentTime()
        with pytest.raises(StreamFullError):
            await node.ledger.finish(filler)
        await js.update_stream(config)
        tasks = await node.all_ended(ids)
        assert [task.attempt_count for task in tasks] == [1] * 5
        assert len(notes.seen) == 5
        await node.queue_empty()


async def test_an_attempt_is_a_trace_that_is_linked_to_the_one_that_submitted(
    node: TaskNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    with OtlpReceiver() as receiver:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{receiver.port}")
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
        with node.agent_process():
            await node.run_replica()
            submitted, span_id = "ab" * 16, "cd" * 8
            task_id = await node.submit(
                "flaky:traced:1", traceparent=f"00-{submitted}-{span_id}-01"
            )
            await node.ended(task_id)

            def attempts() -> list[object]:
                return [s for _, s in receiver.spans if s.name == "task attempt"]

            await eventually(lambda: len(attempts()) == 2)
            for span in attempts():
                assert not span.parent_span_id
                assert span.trace_id.hex() != submitted
                link = span.links[0]
                assert (link.trace_id.hex(), link.span_id.hex()) == (submitted, span_id)
                inside = receiver.trace(span.trace_id.hex())
                assert inside["triton ModelInfer"][1].parent_span_id == span.span_id
            assert [bool(span.status.code) for span in attempts()] == [True, False]
