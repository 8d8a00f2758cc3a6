"""The JetStream streams and consumers of tasks. All of them are on disk.

With nats-server's `sync_interval: always` a task is synced to disk before it is acknowledged; the
local mesh and the compose files set it.
"""

from nats.js import JetStreamContext
from nats.js.api import (
    AckPolicy,
    ConsumerConfig,
    DiscardPolicy,
    RetentionPolicy,
    StreamConfig,
)

from forebay.v1.task_pb2 import Task
from services.wire.streams import ACK_WAIT_S, MAX_REQUEST_CONSUMERS, ensure_stream
from services.wire.tasks import subjects

TASKS = "FOREBAY_TASKS"
ENDED = "FOREBAY_ENDED_TASKS"
RESULTS = "FOREBAY_TASK_RESULTS"
PROGRESS = "FOREBAY_TASK_PROGRESS"
DEAD = "FOREBAY_DEAD_TASKS"
CALLBACKS = "FOREBAY_CALLBACKS"
USAGE_NOTES = "FOREBAY_USAGE_NOTES"
ADVISORIES = "FOREBAY_TASK_ADVISORIES"

PRIORITIES = (Task.PRIORITY_HIGH, Task.PRIORITY_NORMAL, Task.PRIORITY_LOW)
"""In the order in which they are run."""

DUPLICATE_WINDOW_S = 120.0
DEAD_AGE_S = 14 * 24 * 3600.0
MAX_RESULT_TTL_S = 30 * 24 * 3600

MAX_DELIVER = 100
"""Deliveries of one task. Agents count attempts themselves and end a task long before; this is for
a task that ends its agents. What uses it up is ended by the sweeper."""

MAX_WATCHERS = 20_000
"""Calls of WatchTasks at once, each with a consumer of its own: as many as 20 routers hold.
Without a number of its own the server stops at 1,000."""

_GIB = 1 << 30

_TASKS_CONFIG = StreamConfig(
    name=TASKS,
    subjects=[subjects.TASKS],
    retention=RetentionPolicy.WORK_QUEUE,
    # Discarding old tasks would lose them silently.
    discard=DiscardPolicy.NEW,
    max_bytes=_GIB,
    max_consumers=len(PRIORITIES) * MAX_REQUEST_CONSUMERS,
    duplicate_window=DUPLICATE_WINDOW_S,
    allow_direct=True,
    # Tasks submitted together are stored with one sync to disk.
    allow_atomic=True,
)

_ENDED_CONFIG = StreamConfig(
    name=ENDED,
    subjects=[subjects.ENDED],
    # The first word that a task has ended is the one that counts; the server sees to it.
    discard=DiscardPolicy.NEW,
    discard_new_per_subject=True,
    max_msgs_per_subject=1,
    max_bytes=_GIB,
    max_consumers=MAX_WATCHERS,
    max_age=2 * MAX_RESULT_TTL_S,
    duplicate_window=DUPLICATE_WINDOW_S,
    # Each task is kept for its own time.
    allow_msg_ttl=True,
    allow_direct=True,
)

_RESULTS_CONFIG = StreamConfig(
    name=RESULTS,
    subjects=[subjects.RESULTS],
    discard=DiscardPolicy.NEW,
    max_bytes=_GIB,
    max_age=2 * MAX_RESULT_TTL_S,
    allow_msg_ttl=True,
    allow_direct=True,
)

_PROGRESS_CONFIG = StreamConfig(
    name=PROGRESS,
    subjects=[subjects.PROGRESS],
    discard=DiscardPolicy.OLD,
    max_msgs_per_subject=1,
    max_bytes=256 << 20,
    max_age=2 * MAX_RESULT_TTL_S,
    allow_direct=True,
)

_DEAD_CONFIG = StreamConfig(
    name=DEAD,
    subjects=[subjects.DEAD],
    # Dead letters are for people to look at: when there are too many, the oldest go.
    discard=DiscardPolicy.OLD,
    max_msgs_per_subject=1,
    max_bytes=512 << 20,
    max_age=DEAD_AGE_S,
    allow_direct=True,
)

_CALLBACKS_CONFIG = StreamConfig(
    name=CALLBACKS,
    subjects=[subjects.CALLBACKS],
    retention=RetentionPolicy.WORK_QUEUE,
    discard=DiscardPolicy.NEW,
    max_bytes=256 << 20,
    max_age=7 * 24 * 3600.0,
    duplicate_window=DUPLICATE_WINDOW_S,
    allow_direct=True,
)

_USAGE_NOTES_CONFIG = StreamConfig(
    name=USAGE_NOTES,
    subjects=[subjects.USAGE_NOTES],
    discard=DiscardPolicy.OLD,
    max_bytes=64 << 20,
    max_age=7 * 24 * 3600.0,
    duplicate_window=DUPLICATE_WINDOW_S,
    allow_direct=True,
)

_ADVISORIES_CONFIG = StreamConfig(
    name=ADVISORIES,
    # The server says once, and keeps nowhere, that a message has used up its deliveries, or that a
    # replica gave it up. The sweeper reads the former; the latter is for people who look for one.
    subjects=[
        f"$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.{TASKS}.>",
        f"$JS.EVENT.ADVISORY.CONSUMER.MSG_TERMINATED.{TASKS}.>",
    ],
    discard=DiscardPolicy.OLD,
    max_bytes=64 << 20,
    max_age=7 * 24 * 3600.0,
    allow_direct=True,
)

_ALL = (
    _TASKS_CONFIG,
    _ENDED_CONFIG,
    _RESULTS_CONFIG,
    _PROGRESS_CONFIG,
    _DEAD_CONFIG,
    _CALLBACKS_CONFIG,
    _USAGE_NOTES_CONFIG,
    _ADVISORIES_CONFIG,
)


async def ensure(js: JetStreamContext) -> None:
    """Makes sure of all streams of tasks. Sizes that an operator has changed stay as they are."""
    for config in _ALL:
        await ensure_stream(js, config, keep_size=True)


def consumer(deployment: str, priority: int) -> str:
    """Name of the consumer that all replicas of a deployment share for one priority."""
    return f"{deployment}_{priority}"


async def ensure_consumer(
    js: JetStreamContext, deployment: str, priority: int, ack_wait_s: float = ACK_WAIT_S
) -> None:
    """Makes sure of the consumer of one priority of a deployment.

    There is none before the first task of that priority: most deployments never have one, and each
    costs nats-server memory and files.

    Args:
        js: the JetStream context.
        deployment: id of the deployment.
        priority: one of PRIORITIES.
        ack_wait_s: how long a delivery may go without progress.
    """
    await js.add_consumer(
        TASKS,
        ConsumerConfig(
            durable_name=consumer(deployment, priority),
            ack_policy=AckPolicy.EXPLICIT,
            ack_wait=ack_wait_s,
            max_deliver=MAX_DELIVER,
            # Spans all agents, and tasks that wait for their next attempt; the slots are the bound.
            max_ack_pending=1_000_000,
            max_waiting=8192,
            filter_subject=subjects.lane(deployment, priority),
        ),
    )
