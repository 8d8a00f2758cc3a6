"""Pure: every attribute that spans of this project have, by name.

Those of OpenTelemetry are by its semantic conventions for RPC (release candidate of 2026) and for
messaging; `forebay.` is what they have no word for. docs/traces.md says which span has which.
"""

from typing import Final

RPC_SYSTEM: Final = "rpc.system.name"
RPC_METHOD: Final = "rpc.method"
RPC_STATUS: Final = "rpc.response.status_code"
SERVER_ADDRESS: Final = "server.address"
SERVER_PORT: Final = "server.port"
ERROR_TYPE: Final = "error.type"

MESSAGING_SYSTEM: Final = "messaging.system"
OPERATION_NAME: Final = "messaging.operation.name"
OPERATION_TYPE: Final = "messaging.operation.type"
DESTINATION: Final = "messaging.destination.name"
DESTINATION_TEMPLATE: Final = "messaging.destination.template"
MESSAGE_ID: Final = "messaging.message.id"
BODY_SIZE: Final = "messaging.message.body.size"

SERVICE_NAME: Final = "service.name"
SERVICE_VERSION: Final = "service.version"
SERVICE_INSTANCE: Final = "service.instance.id"
HOST_NAME: Final = "host.name"

DEPLOYMENT: Final = "forebay.deployment"
REQUEST: Final = "forebay.request.id"
TASK: Final = "forebay.task.id"
BATCH: Final = "forebay.task.batch"
TASK_COUNT: Final = "forebay.task.count"
REPLICA: Final = "forebay.replica"
NODE: Final = "forebay.node"
ATTEMPT: Final = "forebay.attempt.number"
OUTCOME: Final = "forebay.outcome"
QUEUE_WAIT: Final = "forebay.queue_wait_s"
COLD_START: Final = "forebay.cold_start"
SCALE_DECISION: Final = "forebay.scale_decision"
REPLICAS_FROM: Final = "forebay.replicas.from"
REPLICAS_TO: Final = "forebay.replicas.to"
REASON: Final = "forebay.reason"
GENERATION: Final = "forebay.generation"
START_COUNT: Final = "forebay.start.number"
LINK: Final = "forebay.link"
TRITON_MODEL: Final = "triton.model_name"
TRITON_MODEL_VERSION: Final = "triton.model_version"

GRPC: Final = "grpc"
NATS: Final = "nats"

SERVER_ERRORS: Final = frozenset(
    {
        "UNKNOWN",
        "DEADLINE_EXCEEDED",
        "UNIMPLEMENTED",
        "INTERNAL",
        "UNAVAILABLE",
        "DATA_LOSS",
        "ABORTED",
    }
)
"""Statuses that are an error of the server, by the conventions for gRPC, not of who called it; and
ABORTED, which here says that a request ended every replica that tried it."""
