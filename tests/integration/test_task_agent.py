"""What an agent makes of tasks, with a real nats-server and Triton."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from forebay.v1.envelope_pb2 import (
    OUTCOME_DEADLINE_EXCEEDED,
    OUTCOME_INTERNAL,
    OUTCOME_INVALID_ARGUMENT,
    OUTCOME_OK,
    Outcome,
    ReplyEnvelope,
    RequestEnvelope,
)
from forebay.v1.task_pb2 import Task
from forebay.v1.task_record_pb2 import CallbackEnvelope, TaskEnvelope, TaskEvent, UsageNote
from services.node_agent.tasks import lanes
from services.wire import subjects as request_subjects
from services.wire.tasks import streams, subjects
from tests.support.eventually import eventually
from tests.support.task_model import Notes
from tests.support.task_node import DEPLOYMENT, TaskNode, body, said

HIGH, NORMAL, LOW = Task.PRIORITY_HIGH, Task.PRIORITY_NORMAL, Task.PRIORITY_LOW


@pytest.fixture
def notes(tmp_path: Path) -> Notes:
    return Notes(tmp_path / "notes")


@pytest.fixture
async def node(tmp_path: Path, notes: Notes) -> AsyncIterator[TaskNode]:
    async with AsyncExitStack() as stack:
        made = TaskNode(tmp_path, stack)
        await made.start(notes.model)
        yield made


async def ask(node: TaskNode, word: str) -> Outcome:
    """Sends a request as a router does; returns its outcome."""
    replies: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()

    async def on_reply(msg: object) -> None:
        replies.set_result(ReplyEnvelope.FromString(msg.data).outcome)  # type: ignore[attr-defined]

    subject = node.link.client.new_inbox()
    subscription = await node.link.client.subscribe(subject, cb=on_reply)
    envelope = RequestEnvelope(
        request_id=f"{time.monotonic_ns():032x}",
        reply_subject=subject,
        remaining_ms=60_000,
        body=body(word),
    )
    await node.link.jetstream.publish(
        request_subjects.request(DEPLOYMENT), envelope.SerializeToString()
    )
    try:
        return await asyncio.wait_for(replies, 60)
    finally:
        await subscription.unsubscribe()


async def test_tasks_are_run_and_their_results_kept(node: TaskNode) -> None:
    waited = await node.submit("waited")
    replica = await node.run_replica()
    ids = [waited, *[await node.submit(f"word {i}") for i in range(20)]]
    tasks = await node.all_ended(ids)
    assert [said(task) for task in tasks] == ["waited", *[f"word {i}" for i in range(20)]]
    for task in tasks:
        ended = (task.state, task.outcome, task.attempt_count)
        assert ended == (Task.STATE_SUCCEEDED, OUTCOME_OK, 1)
        assert task.attempts[0].replica_id == replica
        assert task.attempts[0].node == "node-1"
        assert task.start_time.ToNanoseconds() <= task.end_time.ToNanoseconds()
    await node.queue_empty()


async def test_lanes_are_run_in_their_order_and_each_from_its_oldest(
    node: TaskNode, notes: Notes
) -> None:
    words = []
    for priority, name in ((LOW, "low"), (NORMAL, "normal"), (HIGH, "high")):
        for number in range(5):
            words.append(f"{name} {number}")
            await node.submit(words[-1], priority=priority)
    await node.run_replica(slots=1)
    await node.queue_empty()
    assert notes.seen == words[10:] + words[5:10] + words[:5]


async def test_requests_go_before_tasks(node: TaskNode, notes: Notes) -> None:
    await node.run_replica(slots=1)
    await node.submit("hold:first")
    await eventually(lambda: notes.seen == ["hold:first"])
    ids = [await node.submit(f"task {number}") for number in range(10)]
    asked = [asyncio.ensure_future(ask(node, f"request {number}")) for number in range(5)]
    info = streams.consumer(DEPLOYMENT, NORMAL)

    async def all_wait() -> bool:
        tasks = await node.link.jetstream.consumer_info(streams.TASKS, info)
        requests = await node.link.jetstream.consumer_info("FOREBAY_REQUESTS", DEPLOYMENT)
        # One request more than slots may be inside while there are tasks.
        return (tasks.num_pending, requests.num_pending) == (10, 4)

    await eventually(all_wait, timeout_s=25)
    notes.let_go("first")
    assert await asyncio.gather(*asked) == [OUTCOME_OK] * 5
    await node.all_ended(ids)
    assert [word.split()[0] for word in notes.seen[1:]] == ["request"] * 5 + ["task"] * 10


async def test_an_idle_replica_takes_a_task_at_once(
    node: TaskNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    await node.run_replica()
    first = await node.submit("first")
    await node.ended(first)
    # What it asks in any case, it asks in ten minutes: the word alone can tell it.
    monkeypatch.setattr(lanes, "MIN_POLL_S", 600.0)
    monkeypatch.setattr(lanes, "MAX_POLL_S", 600.0)
    # Until it waits for nothing: a question may be open still.
    await asyncio.sleep(3)
    await node.ended(await node.submit("second"))


async def test_an_attempt_that_fails_is_followed_by_another_later(node: TaskNode) -> None:
    await node.run_replica()
    events: list[TaskEvent] = []

    async def on_event(msg: object) -> None:
        events.append(TaskEvent.FromString(msg.data))  # type: ignore[attr-defined]

    await node.link.client.subscribe(subjects.event(DEPLOYMENT, "*"), cb=on_event)
    task = await node.ended(await node.submit("flaky:one:2", min_backoff_s=0.5))
    assert (task.state, task.attempt_count) == (Task.STATE_SUCCEEDED, 3)
    assert [a.outcome for a in task.attempts] == [OUTCOME_INTERNAL, OUTCOME_INTERNAL, OUTCOME_OK]
    assert "not yet" in task.attempts[0].error
    ends = [a.end_time.ToNanoseconds() / 1e9 for a in task.attempts]
    starts = [a.start_time.ToNanoseconds() / 1e9 for a in task.attempts]
    # A fifth less by chance; timers of the queue and of the agent come on top.
    # The bound is far from the 60 s that a backoff may last.
    assert 0.4 - 0.1 <= starts[1] - ends[0] < 20
    assert 0.8 - 0.1 <= starts[2] - ends[1] < 20
    running, queued = Task.STATE_RUNNING, Task.STATE_QUEUED
    wanted = [(running, 1), (queued, 1), (running, 2), (queued, 2), (running, 3)]
    await eventually(lambda: [(event.state, event.attempt) for event in events] == wanted)
    await node.queue_empty()


async def test_what_fails_for_good_is_kept_as_a_dead_letter(node: TaskNode) -> None:
    await node.run_replica()
    used_up = await node.submit("raise:again and again", max_retries=1, batch="b")
    permanent = await node.submit("raise:permanent: no such picture")
    # The model takes one element.
    malformed = node.envelope("whatever")
    malformed.body = malformed.body.replace(b"DO", b"NO")
    await node.ledger.enqueue(malformed)
    tasks = await node.all_ended([used_up, permanent, malformed.task_id])
    assert [(task.state, task.outcome, task.attempt_count) for task in tasks] == [
        (Task.STATE_FAILED, OUTCOME_INTERNAL, 2),
        (Task.STATE_FAILED, OUTCOME_INTERNAL, 1),
        (Task.STATE_FAILED, OUTCOME_INVALID_ARGUMENT, 1),
    ]
    assert "again and again" in tasks[0].error
    assert "no such picture" in tasks[1].error
    for task_id, task in zip((used_up, permanent, malformed.task_id), tasks, strict=True):
        dead = await node.ledger.dead(DEPLOYMENT, task_id)
        assert dead is not None
        assert (dead.task.error, dead.task.attempts) == (task.error, task.attempts)
        assert dead.envelope.task_id == task_id
        assert dead.envelope.body
    await node.queue_empty()


async def test_a_busy_model_is_asked_again_and_nothing_is_counted(
    node: TaskNode, notes: Notes
) -> None:
    await node.run_replica()
    task_id = await node.submit("busy:room", max_retries=0)
    await eventually(lambda: len(notes.seen) >= 3)
    notes.let_go("room")
    task = await node.ended(task_id)
    assert (task.state, task.attempt_count) == (Task.STATE_SUCCEEDED, 1)


async def test_a_task_that_outlives_its_limit_is_ended_and_counted_once_it_is_alone(
    node: TaskNode, notes: Notes
) -> None:
    await node.run_replica(slots=3)
    # Long enough for the other one to come while it hangs.
    hung = await node.submit("hang", attempt_timeout_s=6, max_retries=0)
    await eventually(lambda: notes.seen == ["hang"])
    beside = await node.submit("beside", attempt_timeout_s=6, max_retries=0)
    task, innocent = await node.all_ended([hung, beside])
    assert (innocent.state, innocent.attempt_count) == (Task.STATE_SUCCEEDED, 1)
    ended = (task.state, task.outcome, task.attempt_count)
    assert ended == (Task.STATE_FAILED, OUTCOME_DEADLINE_EXCEEDED, 1)
    assert "attempt_timeout = 6 s" in task.error
    assert notes.seen.count("hang") == 2
    # The replica goes on.
    assert (await node.ended(await node.submit("still here"))).state == Task.STATE_SUCCEEDED


async def test_what_waits_inside_triton_has_not_used_up_its_limit(node: TaskNode) -> None:
    """The model has one instance: the last of these waits three times as long as one may run."""
    replica = await node.run_replica(slots=12)
    ids = [await node.submit(f"wait:{1 + i / 1000}", attempt_timeout_s=3) for i in range(10)]
    tasks = await node.all_ended(ids)
    assert [(task.state, task.attempt_count) for task in tasks] == [(Task.STATE_SUCCEEDED, 1)] * 10
    assert node.status(replica).start_count == 1


async def test_only_the_task_that_kills_its_replica_dies(node: TaskNode, notes: Notes) -> None:
    await node.run_replica(slots=4)
    await node.submit("hold:all")
    words = ["one", "two", "exit", "three", "four"]
    ids = [await node.submit(word, max_retries=0) for word in words]
    notes.let_go("all")
    tasks = await node.all_ended(ids)
    states = [task.state for task in tasks]
    assert states == [
        Task.STATE_FAILED if word == "exit" else Task.STATE_SUCCEEDED for word in words
    ]
    assert [task.attempt_count for task in tasks] == [1] * 5
    assert "died while it ran this task and nothing else" in tasks[2].error
    await node.queue_empty()


async def test_a_task_that_was_cancelled_is_stopped_if_it_is_alone(
    node: TaskNode, notes: Notes
) -> None:
    replica = await node.run_replica(slots=2)
    envelope = node.envelope("hang", attempt_timeout_s=600)
    await node.ledger.enqueue(envelope)
    await eventually(lambda: notes.seen == ["hang"])
    ended = Task()
    ended.CopyFrom(envelope.task)
    ended.state = Task.STATE_CANCELLED
    ended.end_time.GetCurrentTime()
    assert await node.ledger.finish(ended)
    node.ledger.tell_cancelled(DEPLOYMENT, envelope.task_id)
    await eventually(lambda: node.status(replica).start_count == 2, timeout_s=60)
    await node.queue_empty()
    assert (await node.ended(envelope.task_id)).state == Task.STATE_CANCELLED
    assert (await node.ended(await node.submit("still here"))).state == Task.STATE_SUCCEEDED


async def test_the_result_of_a_cancelled_task_is_dropped(node: TaskNode, notes: Notes) -> None:
    await node.run_replica()
    envelope = node.envelope("hold:it", callback_url="https://example.org/done")
    await node.ledger.enqueue(envelope)
    await eventually(lambda: notes.seen == ["hold:it"])
    ended = Task()
    ended.CopyFrom(envelope.task)
    ended.state = Task.STATE_CANCELLED
    ended.end_time.GetCurrentTime()
    assert await node.ledger.finish(ended)
    notes.let_go("it")
    await node.queue_empty()
    assert (await node.ended(envelope.task_id)).state == Task.STATE_CANCELLED
    order = await eventually(
        lambda: node.ledger.reader.last(
            streams.CALLBACKS, subjects.callback(DEPLOYMENT, envelope.task_id)
        )
    )
    assert CallbackEnvelope.FromString(order.data).task.state == Task.STATE_CANCELLED


async def cancel_and_forget(node: TaskNode, envelope: TaskEnvelope) -> None:
    """Has a task cancelled by a router, and purged."""
    ended = Task()
    ended.CopyFrom(envelope.task)
    ended.state = Task.STATE_CANCELLED
    ended.end_time.GetCurrentTime()
    assert await node.ledger.finish(ended)
    message = await node.ledger.queued(DEPLOYMENT, envelope.task_id)
    assert message is not None
    await node.ledger.remove_queued(message.sequence)
    node.ledger.tell_cancelled(DEPLOYMENT, envelope.task_id)
    await node.ledger.forget(DEPLOYMENT, envelope.task_id)


@pytest.mark.parametrize("verb", ["hold", "hold-raise"])
async def test_a_task_that_was_cancelled_and_forgotten_has_no_second_end(
    node: TaskNode, notes: Notes, verb: str
) -> None:
    await node.run_replica()
    envelope = node.envelope(f"{verb}:it", max_retries=0)
    await node.ledger.enqueue(envelope)
    await eventually(lambda: notes.seen == [f"{verb}:it"])
    await cancel_and_forget(node, envelope)
    notes.let_go("it")
    # Behind it in the line of events of the agent.
    for number in range(5):
        await node.ended(await node.submit(f"after {number}"))
    assert await node.ledger.ended(DEPLOYMENT, envelope.task_id) is None
    assert await node.ledger.dead(DEPLOYMENT, envelope.task_id) is None


async def test_a_task_submitted_anew_under_its_key_is_not_answered_by_the_cancelled_one(
    node: TaskNode, notes: Notes
) -> None:
    await node.run_replica()
    first = node.envelope("hold:it", task_id="k1")
    await node.ledger.enqueue(first, "first")
    await eventually(lambda: notes.seen == ["hold:it"])
    await cancel_and_forget(node, first)
    await node.ledger.enqueue(node.envelope("another", task_id="k1"), "second")
    node.ledger.tell_waiting(DEPLOYMENT, NORMAL)
    notes.let_go("it")
    assert said(await node.ended("k1")) == "another"
    await node.queue_empty()


async def test_a_task_that_waited_too_long_expires_and_does_not_run(
    node: TaskNode, notes: Notes
) -> None:
    late = await node.submit("late", ttl_s=0.2)
    in_time = await node.submit("in time")
    await node.run_replica()
    tasks = await node.all_ended([late, in_time])
    assert [task.state for task in tasks] == [Task.STATE_EXPIRED, Task.STATE_SUCCEEDED]
    assert tasks[0].outcome == OUTCOME_DEADLINE_EXCEEDED
    assert notes.seen == ["in time"]
    await node.queue_empty()


async def test_large_results_are_kept_beside_their_task_and_too_large_ones_refused(
    node: TaskNode,
) -> None:
    await node.run_replica()
    large = await node.submit("big:1000000")
    too_large = await node.submit(f"big:{9 << 20}")
    far_too_large = await node.submit(f"big:{70 << 20}")
    tasks = await node.all_ended([large, too_large, far_too_large], timeout_s=60)
    assert len(said(tasks[0])) == 1_000_000
    for task in tasks[1:]:
        assert (task.state, task.attempt_count) == (Task.STATE_FAILED, 1)
        assert "bytes" in task.error


async def test_what_was_done_is_noted_for_who_had_it_done(tmp_path: Path, notes: Notes) -> None:
    async with AsyncExitStack() as stack:
        node = TaskNode(tmp_path, stack)
        await node.start(notes.model, in_process=False)
        async with node.agent():
            await node.run_replica(slots=2)
            began_s = time.monotonic()
            ids = [await node.submit("wait:0.2", tenant="ann", batch="b1") for _ in range(3)]
            ids.append(await node.submit("raise:no", tenant="bob", max_retries=0))
            await node.all_ended(ids)
            took_ms = (time.monotonic() - began_s) * 1000
        # At the latest when the agent ends.
        found = await node.ledger.reader.read(streams.USAGE_NOTES, subjects.usage_note(DEPLOYMENT))
        sums: dict[tuple[str, str], list[float]] = {}
        for message in found:
            note = UsageNote.FromString(message.data)
            kept = sums.setdefault((note.tenant, note.batch), [0, 0.0, 0.0])
            kept[0] += note.attempt_count
            kept[1] += note.busy_time.ToMilliseconds()
            kept[2] += note.replica_time.ToMilliseconds()
        assert {key: kept[0] for key, kept in sums.items()} == {("ann", "b1"): 3, ("bob", ""): 1}
        busy_ms, replica_ms = sums["ann", "b1"][1:]
        assert 600 <= busy_ms <= 3 * took_ms
        assert replica_ms == pytest.approx(busy_ms / 2, abs=3)


async def test_tasks_count_as_ongoing_and_in_the_replicas_tallies(
    node: TaskNode, notes: Notes
) -> None:
    replica = await node.run_replica(slots=3)
    ids = [await node.submit("hold:them") for _ in range(2)]
    await eventually(lambda: notes.seen)
    notes.let_go("them")
    await node.all_ended(ids)
    # A report goes out when something changes: another replica does.
    await node.run_replica(slots=3)
    status = next(
        r
        for _, report in reversed(node.leader.reports)
        for r in report.replicas
        if r.replica_id == replica
    )
    assert status.attempt_counts["ok"] == 2
    assert sum(status.service_time.counts) == 2
    assert sum(status.queue_wait.counts) == 0
