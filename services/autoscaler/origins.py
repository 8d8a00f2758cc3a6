"""Which scale decision made each target what it is: the origin of the replicas that follow from it.

A decision gets its name from the stream it is kept in, a moment after it was made. Its span, made
where tracing is on and the target rose, is open until then.
"""

import asyncio
from collections.abc import Iterable

import structlog

from services.runtime import telemetry
from services.runtime import trace_words as words

log = structlog.get_logger()

NAMED_WITHIN_S = 0.1
"""How long assignments wait for the name of their decision: it is written at about the same time as
the target is, so it is there already but for a NATS that is slow just then."""

SPAN = "scale decision"
MAX_REASON_CHARACTERS = 500


class Origin:
    """A decision.

    Attributes:
        name: resource name of the decision; empty until, or unless, it is known.
        traceparent: W3C context of its span; empty if there is none.
    """

    __slots__ = ("_named", "_span", "name", "traceparent")

    def __init__(self, span: telemetry.ActiveSpan | None = None) -> None:
        self.name = ""
        self.traceparent = span.traceparent if span is not None else ""
        self._span = span
        self._named = asyncio.Event()

    def named(self, name: str) -> None:
        """Takes its name; empty if it was not kept, and has none."""
        self.name = name
        span, self._span = self._span, None
        if span is not None:
            if name:
                span.set({words.SCALE_DECISION: name})
            span.end()
        self._named.set()

    async def wait(self) -> None:
        """Returns once the name is known."""
        await self._named.wait()


NONE = Origin()


class Origins:
    """The origin of each deployment's target, in this term."""

    def __init__(self) -> None:
        self._by_deployment: dict[str, Origin] = {}

    def clear(self) -> None:
        """Forgets all: others may have decided in between."""
        self._by_deployment.clear()

    def forget(self, deployment: str) -> None:
        """A deployment is not declared any more."""
        self._by_deployment.pop(deployment, None)

    def of(self, deployment: str) -> Origin:
        """The origin of a deployment's target; NONE if it is not known."""
        return self._by_deployment.get(deployment, NONE)

    def decided(self, deployment: str, before: int | None, target: int, reason: str) -> Origin:
        """Takes note of a decision.

        Args:
            deployment: its id.
            before: the target before; None if there was none.
            target: the target now.
            reason: for a person.

        Returns:
            The decision, to be told its name. One that left the target as it was is the origin of
            replicas only where no other is known.
        """
        if before == target:
            held = Origin()
            self._by_deployment.setdefault(deployment, held)
            return held
        span = None
        if target > (before or 0) and telemetry.enabled():
            attributes: dict[str, telemetry.Value] = {
                words.DEPLOYMENT: deployment,
                words.REPLICAS_FROM: before or 0,
                words.REPLICAS_TO: target,
                words.REASON: reason[:MAX_REASON_CHARACTERS],
            }
            span = telemetry.span(SPAN, "INTERNAL", {}, attributes=attributes)
        origin = self._by_deployment[deployment] = Origin(span)
        return origin

    async def wait_named(self, deployments: Iterable[str]) -> None:
        """Waits until the origins of these deployments have names, at most NAMED_WITHIN_S."""
        unnamed = [o for d in deployments if (o := self.of(d)) is not NONE and not o.name]
        if not unnamed:
            return
        try:
            async with asyncio.timeout(NAMED_WITHIN_S):
                for origin in unnamed:
                    await origin.wait()
        except TimeoutError:
            log.info("origins.unnamed", decisions=len(unnamed))
