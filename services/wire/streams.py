"""Every JetStream stream, consumer and bucket of the mesh, and how to make sure it is there.

Requests and kept replies are in memory: a caller waits for them who can repeat them. They are gone
after a restart of a single nats-server, so every process that uses one makes sure of it whenever
it connects. Deployments, assignments and models are on disk.
"""

from dataclasses import replace

import nats.js.errors
from nats.aio.client import Client
from nats.js import JetStreamContext
from nats.js.api import (
    AckPolicy,
    ConsumerConfig,
    ConsumerInfo,
    DiscardPolicy,
    KeyValueConfig,
    ObjectStoreConfig,
    RetentionPolicy,
    StorageType,
    StreamConfig,
)
from nats.js.kv import KeyValue
from nats.js.object_store import ObjectStore

from services.wire import subjects
from services.wire.replicated import ReplicatedJetStream

REQUESTS = "FOREBAY_REQUESTS"
KEPT_REPLIES = "FOREBAY_KEPT_REPLIES"
DEPLOYMENTS_BUCKET = "FOREBAY_DEPLOYMENTS"
ASSIGNMENTS_BUCKET = "FOREBAY_ASSIGNMENTS"
MODELS_BUCKET = "FOREBAY_MODELS"
METADATA_BUCKET = "FOREBAY_METADATA"
SCALING_BUCKET = "FOREBAY_SCALING"
SCHEDULES_BUCKET = "FOREBAY_SCHEDULES"
DECISIONS = "FOREBAY_DECISIONS"

MAX_DECISIONS_PER_DEPLOYMENT = 500
DECISION_AGE_S = 7 * 24 * 3600.0

ACK_WAIT_S = 10.0
"""How long a delivery may go without progress before it is delivered again."""

MAX_DELIVER = 5
"""Deliveries of one request. At least 4: every freeze of an agent costs one."""

KEPT_REPLY_AGE_S = 120.0
DUPLICATE_WINDOW_S = 60.0
MAX_REQUEST_CONSUMERS = 20_000

_OTHER_CONFIGURATION = 10058
"""JetStream's error code for a stream that is there with another configuration."""

_REQUESTS_CONFIG = StreamConfig(
    name=REQUESTS,
    subjects=[subjects.REQUESTS],
    retention=RetentionPolicy.WORK_QUEUE,
    storage=StorageType.MEMORY,
    # Discarding old messages of a work queue would lose requests silently.
    discard=DiscardPolicy.NEW,
    max_bytes=512 << 20,
    # One for each deployment; without a number of its own the server stops at 1,000.
    max_consumers=MAX_REQUEST_CONSUMERS,
    duplicate_window=DUPLICATE_WINDOW_S,
    allow_msg_ttl=True,
    allow_direct=True,
)

_KEPT_REPLIES_CONFIG = StreamConfig(
    name=KEPT_REPLIES,
    subjects=[subjects.KEPT_REPLIES],
    storage=StorageType.MEMORY,
    # The first reply to an idempotent request is the one that counts.
    discard=DiscardPolicy.NEW,
    discard_new_per_subject=True,
    max_msgs_per_subject=1,
    max_age=KEPT_REPLY_AGE_S,
    max_bytes=64 << 20,
    allow_direct=True,
)


_DECISIONS_CONFIG = StreamConfig(
    name=DECISIONS,
    subjects=[subjects.DECISIONS],
    # A journal: the oldest make room.
    discard=DiscardPolicy.OLD,
    max_msgs_per_subject=MAX_DECISIONS_PER_DEPLOYMENT,
    max_age=DECISION_AGE_S,
    max_bytes=256 << 20,
    allow_direct=True,
)


async def ensure_decisions(js: JetStreamContext) -> None:
    """Makes sure of the journal of scale decisions."""
    await ensure_stream(js, _DECISIONS_CONFIG)


async def ensure_requests(js: JetStreamContext) -> None:
    """Makes sure of the stream of requests."""
    await ensure_stream(js, _REQUESTS_CONFIG)


async def ensure_kept_replies(js: JetStreamContext) -> None:
    """Makes sure of the stream of kept replies."""
    await ensure_stream(js, _KEPT_REPLIES_CONFIG)


async def ensure_request_consumer(
    js: JetStreamContext, deployment: str, ack_wait_s: float = ACK_WAIT_S
) -> None:
    """Makes sure of the consumer that all replicas of a deployment share.

    Args:
        js: the JetStream context.
        deployment: id of the deployment; also the consumer's name.
        ack_wait_s: how long a delivery may go without progress.
    """
    await ensure_requests(js)
    await js.add_consumer(
        REQUESTS,
        ConsumerConfig(
            durable_name=deployment,
            ack_policy=AckPolicy.EXPLICIT,
            ack_wait=ack_wait_s,
            max_deliver=MAX_DELIVER,
            # Spans all agents; the slots are the real bound.
            max_ack_pending=100_000,
            max_waiting=8192,
            filter_subject=subjects.request(deployment),
        ),
    )


async def request_consumer_info(js: JetStreamContext, deployment: str) -> ConsumerInfo | None:
    """State of a deployment's consumer from the consumer's leader; None if there is none."""
    try:
        return await js.consumer_info(REQUESTS, deployment)
    except nats.js.errors.NotFoundError:
        return None


async def request_consumers(js: JetStreamContext) -> set[str]:
    """Ids of all deployments that have a consumer, declared or not."""
    found: set[str] = set()
    while page := await js.consumers_info(REQUESTS, offset=len(found)):
        before = len(found)
        found |= {info.name for info in page}
        if len(found) == before:
            break
    return found


async def remove_request_consumer(js: JetStreamContext, deployment: str) -> None:
    """Removes a deployment's consumer and the requests that wait for it, if there are any."""
    try:
        await js.delete_consumer(REQUESTS, deployment)
        await js.purge_stream(REQUESTS, subject=subjects.request(deployment))
    except nats.js.errors.NotFoundError:
        return


async def deployments_bucket(js: JetStreamContext) -> KeyValue:
    """Deployments: `spec.{deployment}` → Deployment, `status.{deployment}` → DeploymentStatus."""
    return await bucket(js, DEPLOYMENTS_BUCKET)


async def assignments_bucket(js: JetStreamContext) -> KeyValue:
    """Assignments: `node.{node}` → AssignmentSet, `leader` → Leadership."""
    return await bucket(js, ASSIGNMENTS_BUCKET)


async def scaling_bucket(js: JetStreamContext) -> KeyValue:
    """Targets: `target.{deployment}` → ScaleState."""
    return await bucket(js, SCALING_BUCKET)


async def schedules_bucket(js: JetStreamContext) -> KeyValue:
    """Schedules: `schedule.{tenant}.{schedule}` → Schedule."""
    return await bucket(js, SCHEDULES_BUCKET)


async def metadata_bucket(js: JetStreamContext) -> KeyValue:
    """What Triton says of a loaded model.

    `metadata.{deployment}` → ModelMetadataResponse, `config.{deployment}` → ModelConfigResponse.
    """
    return await bucket(js, METADATA_BUCKET)


async def models_store(js: JetStreamContext) -> ObjectStore:
    """Model archives by digest, as `sha256-{64 hexadecimal digits}`."""
    try:
        store = await js.object_store(MODELS_BUCKET)
    except nats.js.errors.NotFoundError:
        return await js.create_object_store(MODELS_BUCKET, ObjectStoreConfig(bucket=MODELS_BUCKET))
    await _replicate(js, f"OBJ_{MODELS_BUCKET}")
    return store


def model_object_name(digest: str) -> str:
    """Name in the object store of the model with a digest `sha256:…`."""
    return digest.replace(":", "-")


def jetstream(client: Client) -> JetStreamContext:
    """A JetStream context whose API calls give up after 5 s."""
    return client.jetstream(timeout=5)


async def ensure_stream(
    js: JetStreamContext, config: StreamConfig, keep_size: bool = False
) -> None:
    """Makes sure of a stream; one of an earlier version gets the configuration of this one.

    Args:
        js: the JetStream context.
        config: the stream.
        keep_size: leaves the size of one that is there as it is: an operator may have changed it.
    """
    try:
        await js.add_stream(config)
    except nats.js.errors.APIError as error:
        if error.err_code != _OTHER_CONFIGURATION:
            raise
        there = (await js.stream_info(config.name or "")).config
        if keep_size:
            config = replace(config, max_bytes=there.max_bytes)
        config = replace(config, num_replicas=there.num_replicas)
        await js.update_stream(config)


async def bucket(js: JetStreamContext, name: str) -> KeyValue:
    """A key-value bucket that keeps the last value of each key, made if it is not there."""
    try:
        there = await js.key_value(name)
    except nats.js.errors.NotFoundError:
        return await js.create_key_value(KeyValueConfig(bucket=name, history=1))
    await _replicate(js, f"KV_{name}")
    return there


async def _replicate(js: JetStreamContext, stream: str) -> None:
    """Has a stream that was made before there was a cluster kept on all of its servers."""
    if isinstance(js, ReplicatedJetStream):
        await js.replicate(stream)
