"""What an agent makes of tasks, with a real nats-server and Triton."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from forebay.v1.envelope_pb2 import OUTCOME_OK
from forebay.v1.task_pb2 import Task
from tests.support.task_node import TaskNode, said


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[TaskNode]:
    async with AsyncExitStack() as stack:
        made = TaskNode(tmp_path, stack)
        await made.start()
        yield made


async def test_tasks_are_run_and_their_results_kept(node: TaskNode) -> None:
    waited = await node.submit("waited")
    replica = await node.run_replica()
    ids = [waited, *[await node.submit(f"word {i}") for i in range(20)]]
    tasks = await node.all_ended(ids)
    assert [said(task) for task in tasks] == ["waited", *[f"word {i}" for i in range(20)]]
    for task in tasks:
        assert (task.state, task.outcome, task.attempt_count) == (
            Task.STATE_SUCCEEDED,
            OUTCOME_OK,
            1,
        )
        assert task.attempts[0].replica_id == replica
        assert task.attempts[0].node == "node-1"
        assert task.start_time.ToNanoseconds() <= task.end_time.ToNanoseconds()
    await node.queue_empty()
