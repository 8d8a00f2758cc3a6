"""The spans of one attempt at a task.

An attempt is a trace of its own that is linked to the one that submitted the task: hours may lie
between them, and one submitter may have a million tasks.
"""

from forebay.v1.task_record_pb2 import TaskEnvelope
from services.node_agent.triton_client import Metadata
from services.runtime import telemetry


class TaskTrace:
    """Spans of one attempt; made only while tracing is on."""

    __slots__ = ("_attempt", "_call")

    def __init__(self, attempt: telemetry.ActiveSpan) -> None:
        """Use `start`."""
        self._attempt = attempt
        self._call: telemetry.ActiveSpan | None = None

    @classmethod
    def start(cls, envelope: TaskEnvelope, attempt: int) -> "TaskTrace | None":
        """Begins an attempt; None while tracing is off."""
        if not telemetry.enabled():
            return None
        submitted = {"traceparent": envelope.traceparent, "tracestate": envelope.tracestate}
        span = telemetry.span(
            "task attempt",
            "CONSUMER",
            {},
            attributes={
                "messaging.system": "nats",
                "messaging.operation.type": "process",
                "forebay.deployment": envelope.deployment,
                "forebay.task.id": envelope.task_id,
                "forebay.task.attempt": attempt,
            },
            links=(submitted,) if envelope.traceparent else (),
        )
        return cls(span) if span is not None else None

    def call_triton(self) -> Metadata:
        """Begins the call; returns the metadata that carries its context to Triton."""
        self._call = telemetry.span(
            "triton ModelInfer",
            "CLIENT",
            self._attempt.carrier,
            attributes={
                "rpc.system": "grpc",
                "rpc.method": "inference.GRPCInferenceService/ModelInfer",
            },
        )
        return tuple(self._call.carrier.items()) if self._call is not None else ()

    def end(self, error: str | None) -> None:
        """Ends the call and the attempt."""
        if self._call is not None:
            self._call.end(error)
        self._attempt.end(error)
