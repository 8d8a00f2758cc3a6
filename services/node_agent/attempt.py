"""One attempt at a request or a task: from the message to Triton's answer as an outcome."""

import asyncio
import contextlib
import os
import re
from dataclasses import dataclass

import grpc
import nats.errors

from forebay.v1.envelope_pb2 import (
    OUTCOME_INTERNAL,
    OUTCOME_OK,
    BodyClaim,
    Outcome,
    RequestEnvelope,
)
from services.node_agent.protobuf_fields import bytes_head
from services.node_agent.shared_memory import SHARED_MEMORY, has_object
from services.node_agent.triton.triton_client import Metadata, TritonClient, TritonError
from services.wire import outcomes
from services.wire.limits import MAX_BODY_BYTES
from services.wire.nats_link import NatsLink
from services.wire.triton_stubs import service_pb2 as triton

FETCH_TIMEOUT_S = 5.0

ALIVE_TIMEOUT_S = 2.0
MAX_MESSAGE_CHARACTERS = 4000

_RAW_INPUT_CONTENTS = 7
"""Number of that field of ModelInferRequest."""

# The whole message as Triton words it, so that nothing a caller or a model writes passes for it.
_STUB_DIED = re.compile(
    r"(Failed to process the request\(s\) for model instance '[^']*', message: )?"
    r"Stub process '[^']*' is not healthy\.?"
)


class ReplicaLostError(Exception):
    """Triton, or the process inside it that runs the model, died during the attempt."""


class BodyNotFetchedError(Exception):
    """The body is elsewhere and could not be had now."""


class RequestGoneError(Exception):
    """Nobody waits for the request any more."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What Triton said.

    Attributes:
        outcome: how the attempt ended.
        message: why, if the outcome is not OK.
        body: a serialised ModelInferResponse, if it is.
        too_large: the model answered, with more than an answer may be.
    """

    outcome: Outcome
    message: str
    body: bytes
    too_large: bool = False


async def run(
    envelope: RequestEnvelope, client: TritonClient, link: NatsLink, metadata: Metadata | None
) -> Answer:
    """Gives a request to Triton.

    Args:
        envelope: the request.
        client: of the replica's Triton.
        link: to fetch a claimed body of another host.
        metadata: gRPC metadata for Triton.

    Raises:
        ReplicaLostError: if Triton or its model's process died.
        RequestGoneError: if the body is not kept any more.
        BodyNotFetchedError: if it could not be fetched now.
    """
    try:
        if envelope.WhichOneof("payload") == "claim":
            body = await _claimed_body(envelope, client, link)
        else:
            body = envelope.body
    except TritonError as error:
        return await _refusal(error, client)
    return await infer(body, client, metadata)


async def infer(body: bytes, client: TritonClient, metadata: Metadata | None) -> Answer:
    """Gives a body to Triton.

    Args:
        body: a serialised ModelInferRequest.
        client: of the replica's Triton.
        metadata: gRPC metadata for Triton.

    Raises:
        ReplicaLostError: if Triton or its model's process died.
    """
    try:
        response = await client.infer(body, metadata)
    except TritonError as error:
        return await _refusal(error, client)
    if len(response) > MAX_BODY_BYTES:
        return Answer(
            OUTCOME_INTERNAL,
            f"the model's answer is {len(response)} bytes; the limit is {MAX_BODY_BYTES} bytes",
            b"",
            too_large=True,
        )
    return Answer(OUTCOME_OK, "", response)


async def _refusal(error: TritonError, client: TritonClient) -> Answer:
    message = error.message
    if error.code is grpc.StatusCode.INTERNAL and _STUB_DIED.fullmatch(message.strip()):
        raise ReplicaLostError(message) from error
    if error.code is grpc.StatusCode.UNAVAILABLE and not await _is_alive(client):
        raise ReplicaLostError(message) from error
    if len(message) > MAX_MESSAGE_CHARACTERS:
        message = f"{message[:MAX_MESSAGE_CHARACTERS]}… ({len(message)} characters)"
    return Answer(outcomes.from_triton(error.code), message, b"", error.too_large)


async def _is_alive(client: TritonClient) -> bool:
    """Whether Triton itself still answers: models and full queues say UNAVAILABLE too."""
    try:
        async with asyncio.timeout(ALIVE_TIMEOUT_S):
            return await client.is_ready()
    except (TritonError, TimeoutError):
        return False


async def _claimed_body(envelope: RequestEnvelope, client: TritonClient, link: NatsLink) -> bytes:
    claim = envelope.claim
    if has_object(claim.arena):
        if not client.shares_memory:
            with contextlib.suppress(OSError, ValueError):
                return await asyncio.to_thread(_copied_body, claim)
        else:
            try:
                await client.use_region(claim.arena, claim.arena_size_bytes)
                return _with_references(claim)
            except TritonError as error:
                if error.code is grpc.StatusCode.UNAVAILABLE:
                    raise
    try:
        answer = await link.client.request(
            claim.fetch_subject, envelope.request_id.encode(), timeout=FETCH_TIMEOUT_S
        )
    except nats.errors.NoRespondersError as error:
        raise RequestGoneError("its router is gone") from error
    except (nats.errors.Error, TimeoutError) as error:
        raise BodyNotFetchedError(str(error) or type(error).__name__) from error
    if not answer.data:
        raise RequestGoneError("its router does not hold it any more")
    body: bytes = answer.data
    return body


def _with_references(claim: BodyClaim) -> bytes:
    """The request with references into the arena where its raw tensors were."""
    request = triton.ModelInferRequest.FromString(claim.head)
    spans = zip(request.inputs, claim.raw_offset_bytes, claim.raw_length_bytes, strict=True)
    for tensor, offset, length in spans:
        tensor.parameters["shared_memory_region"].string_param = claim.arena
        tensor.parameters["shared_memory_offset"].int64_param = offset
        tensor.parameters["shared_memory_byte_size"].int64_param = length
    serialized: bytes = request.SerializeToString()
    return serialized


def _copied_body(claim: BodyClaim) -> bytes:
    """The request with its raw tensors, read from the arena. Blocks for milliseconds.

    Raises:
        OSError: if this user may not read the arena.
        ValueError: if the arena does not have them.
    """
    parts = [claim.head]
    with open(f"{SHARED_MEMORY}/{claim.arena}", "rb") as arena:
        for offset, length in zip(claim.raw_offset_bytes, claim.raw_length_bytes, strict=True):
            tensor = os.pread(arena.fileno(), length, offset)
            if len(tensor) != length:
                raise ValueError(f"the arena has no {length} bytes at {offset}")
            parts += (bytes_head(_RAW_INPUT_CONTENTS, length), tensor)
    return b"".join(parts)
