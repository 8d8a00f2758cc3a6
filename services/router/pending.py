"""The calls a router holds: bounded, and each ended exactly once."""

import asyncio
from dataclasses import dataclass, field

from forebay.v1.envelope_pb2 import OUTCOME_RESOURCE_EXHAUSTED, ReplyEnvelope, RequestEnvelope
from services.router.body_arena import Block
from services.wire.outcomes import OutcomeError


@dataclass(slots=True, eq=False)
class PendingCall:
    """One call that waits for its reply.

    Attributes:
        request_id: identifies it on the wire.
        deployment: id of the deployment.
        envelope: what is queued; its `remaining_ms` is set anew at each publish.
        deadline_s: monotonic time at which the caller must have an answer.
        attempt_limit_s: the longest an attempt may run after that.
        size: bytes it counts against the limit.
        reply: resolved once, with the first final reply or an OutcomeError.
        block: where the body is in the arena, if it is there.
        published_s: monotonic time of the last publish.
        accepted_sequence: its place in the stream, once the server has said that it is stored.
        publish_count: how often it was sent to the server.
        message_id: what the server tells duplicates by.
    """

    request_id: str
    deployment: str
    envelope: RequestEnvelope
    deadline_s: float
    attempt_limit_s: float
    size: int
    reply: "asyncio.Future[ReplyEnvelope]"
    message_id: str
    block: Block | None = None
    published_s: float = 0.0
    accepted_sequence: int | None = None
    accepted_duplicate: bool = False
    publish_count: int = 0
    accepted: asyncio.Event | None = field(default=None)

    def fail(self, error: OutcomeError) -> None:
        """Ends the call with an error, if it has not ended."""
        if not self.reply.done():
            self.reply.set_exception(error)


class PendingCalls:
    """All calls under way, with the limits on how many and how large."""

    def __init__(self, max_calls: int, max_bytes: int) -> None:
        """No calls yet."""
        self._max_calls = max_calls
        self._max_bytes = max_bytes
        self._calls: dict[str, PendingCall] = {}
        self._count = 0
        self._bytes = 0
        self._by_deployment: dict[str, int] = {}

    def __len__(self) -> int:
        return self._count

    def admit(self, deployment: str, size: int, max_queued: int) -> None:
        """Checks that one more call fits.

        Args:
            deployment: id of its deployment.
            size: bytes of its body.
            max_queued: calls the deployment allows through one router.

        Raises:
            OutcomeError: RESOURCE_EXHAUSTED if it does not.
        """
        held = self._by_deployment.get(deployment, 0)
        if held >= max_queued:
            raise _full(
                f"{held} requests for {deployment} wait or run already; its max_queued_requests "
                f"is {max_queued}. Try again, add replicas or raise the limit"
            )
        if self._count >= self._max_calls:
            raise _full(
                f"this router holds {self._count} calls, its max_pending_calls. "
                "Try again or add a router"
            )
        if self._bytes + size > self._max_bytes:
            raise _full(
                f"this router holds bodies of {self._bytes} bytes; its max_pending_bytes is "
                f"{self._max_bytes}. Try again or add a router"
            )

    def add(self, call: PendingCall) -> None:
        """Counts a call in. Replies to its id are its own, unless an earlier call gets them."""
        self._calls.setdefault(call.request_id, call)
        self._count += 1
        self._bytes += call.size
        self._by_deployment[call.deployment] = self._by_deployment.get(call.deployment, 0) + 1

    def lead(self, call: PendingCall) -> None:
        """Has replies to its id go to this call, one of several of that id."""
        self._calls[call.request_id] = call

    def remove(self, call: PendingCall) -> None:
        """Counts a call out."""
        if self._calls[call.request_id] is call:
            del self._calls[call.request_id]
        self._count -= 1
        self._bytes -= call.size
        left = self._by_deployment[call.deployment] - 1
        if left:
            self._by_deployment[call.deployment] = left
        else:
            del self._by_deployment[call.deployment]

    def get(self, request_id: str) -> PendingCall | None:
        """The call that gets the replies to a request id, if one is under way."""
        return self._calls.get(request_id)

    def all(self) -> list[PendingCall]:
        """Every call under way that gets replies itself, oldest first."""
        return list(self._calls.values())


def _full(message: str) -> OutcomeError:
    return OutcomeError(OUTCOME_RESOURCE_EXHAUSTED, message, retry_after_s=1.0)
