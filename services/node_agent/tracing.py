"""The spans of one attempt: queue wait, the attempt, the call of Triton, the reply."""

import time

from forebay.v1.envelope_pb2 import RequestEnvelope
from services.node_agent.triton_client import Metadata
from services.runtime import telemetry


class AttemptTrace:
    """Spans of one attempt; made only while tracing is on."""

    __slots__ = ("_attempt", "_call", "_deployment")

    def __init__(self, attempt: telemetry.ActiveSpan, deployment: str) -> None:
        """Use `start`."""
        self._attempt = attempt
        self._deployment = deployment
        self._call: telemetry.ActiveSpan | None = None

    @classmethod
    def start(
        cls, envelope: RequestEnvelope, deployment: str, queue_wait_s: float
    ) -> "AttemptTrace | None":
        """Records the queue wait and begins the attempt; None while tracing is off."""
        if not telemetry.enabled():
            return None
        now_ns = time.time_ns()
        carrier = {"traceparent": envelope.traceparent, "tracestate": envelope.tracestate}
        wait = telemetry.span(
            "queue wait",
            "INTERNAL",
            carrier,
            attributes={"forebay.deployment": deployment},
            start_time_ns=now_ns - int(queue_wait_s * 1e9),
        )
        if wait is not None:
            wait.end(end_time_ns=now_ns)
        span = telemetry.span(
            "attempt",
            "CONSUMER",
            carrier,
            attributes={
                "messaging.system": "nats",
                "messaging.operation.type": "process",
                "forebay.deployment": deployment,
                "forebay.request.id": envelope.request_id,
            },
            start_time_ns=now_ns,
        )
        return cls(span, deployment) if span is not None else None

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

    def reply(self, error: str | None) -> None:
        """Ends the call, and records that the answer goes out."""
        if self._call is not None:
            self._call.end(error)
            self._call = None
        span = telemetry.span("reply", "PRODUCER", self._attempt.carrier)
        if span is not None:
            span.end()

    def end(self, error: str | None) -> None:
        """Ends the attempt, and the call if it did not come back."""
        if self._call is not None:
            self._call.end(error)
        self._attempt.end(error)
