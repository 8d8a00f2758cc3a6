"""Sizes that every process must agree on."""

MAX_BODY_BYTES = 8 * 1024 * 1024
"""Largest request or response body, serialised."""

MAX_NATS_PAYLOAD_BYTES = MAX_BODY_BYTES + 64 * 1024
"""What nats-server's `max_payload` must allow: a body, its envelope and headers.

nats-py checks only the payload while the server counts the headers too, and one message over the
limit closes the connection for good; so bodies are checked against MAX_BODY_BYTES long before.
"""

MAX_GRPC_MESSAGE_BYTES = 8 * MAX_BODY_BYTES
"""Receive limit of the gRPC servers: above ours, so that our own check can name ours."""

CLAIM_THRESHOLD_BYTES = 64 * 1024
"""Bodies from this size on stay with the router; the queue carries a claim."""

MAX_CLAIM_HEAD_BYTES = 64 * 1024
"""Largest part of a claimed body, beside its raw tensors, that travels in the envelope."""

MAX_MODEL_BYTES = 32 * 1024**3
"""Largest model archive."""

MODEL_CHUNK_BYTES = 512 * 1024
"""Chunk of a model archive on gRPC and in the object store."""
