"""Follows what the leading autoscaler wants this node to run.

Any number of autoscalers may run and one leads: each is dialled in turn, and whoever answers with
something that the agent accepts is listened to until it falls silent. A standby refuses; so does
the agent, if an autoscaler that was replaced does not know it yet.
"""

import asyncio
import itertools
import random
from collections.abc import Callable, Sequence
from typing import Any

import grpc
import grpc.aio
import structlog
from grpc_health.v1 import health_pb2, health_pb2_grpc

from forebay.v1.autoscaler_pb2 import WatchAssignmentsRequest, WatchAssignmentsResponse
from forebay.v1.autoscaler_pb2_grpc import AutoscalerServiceStub
from services.node_agent.reconcile import AssignedSet
from services.wire import names
from services.wire.channels import CHANNEL_OPTIONS

log = structlog.get_logger()

BETWEEN_S = 0.05
"""Pause before the next autoscaler is dialled."""
FIRST_ROUND_S = 0.1
LONGEST_ROUND_S = 0.8
"""Pause once each was dialled in vain; doubles from the first to the longest."""
FIRST_ANSWER_S = 5.0
"""The leader answers at once; one that has taken the call and is frozen never does."""

ASK_EVERY_S = 6.0
ANSWER_WITHIN_S = 4.0
"""Nothing may change for hours, and a frozen leader must be left within 15 s if another may lead.

Its kernel acknowledges what it is sent. Pings of HTTP/2 would tell too, but those of the mesh's
channels come every 20 s, and servers take many more for an attack.
"""

# A dial is a dial: the shared pool would make it wait for the pauses of one before it.
_OPTIONS = [*CHANNEL_OPTIONS, ("grpc.use_local_subchannel_pool", 1)]

Accept = Callable[[AssignedSet], bool]


def pause_s(vain_count: int, address_count: int, luck_ratio: float) -> float:
    """How long to wait before the next dial, in seconds.

    Args:
        vain_count: dials in vain since an autoscaler was listened to.
        address_count: autoscalers there are.
        luck_ratio: 0 to 1, by chance: agents that lost the same leader do not come back together.
    """
    rounds, within = divmod(vain_count, address_count)
    longest_s = BETWEEN_S
    if rounds and not within:
        longest_s = min(LONGEST_ROUND_S, FIRST_ROUND_S * 2.0 ** min(rounds - 1, 10))
    return longest_s * (0.5 + luck_ratio / 2)


async def follow(addresses: Sequence[str], node: str, accept: Accept) -> None:
    """Gives each assigned set to `accept` as it comes, for ever.

    Args:
        addresses: of the autoscalers, each as host:port.
        node: id of this node.
        accept: returns False for a set that must not be applied; the next autoscaler is dialled.
    """
    watches = [_Watch(address, node, accept, len(addresses) > 1) for address in addresses]
    vain_count = 0
    for watch in itertools.cycle(watches):
        vain_count = 0 if await watch.listen() else vain_count + 1
        await asyncio.sleep(pause_s(vain_count, len(watches), random.random()))  # noqa: S311


class _Watch:
    """What there is to know of one autoscaler."""

    def __init__(self, address: str, node: str, accept: Accept, another: bool) -> None:
        self._address = address
        self._request = WatchAssignmentsRequest(node=names.node_name(node))
        self._accept = accept
        self._another = another
        self._last_reason = ""
        self._accepted = False

    async def listen(self) -> bool:
        """Listens until it says no more; returns whether anything it said was accepted."""
        self._accepted = False
        async with grpc.aio.insecure_channel(self._address, options=_OPTIONS) as channel:
            call = AutoscalerServiceStub(channel).WatchAssignments(self._request)
            listening = asyncio.ensure_future(self._hear(call))
            asking = asyncio.ensure_future(self._until_silent(channel))
            try:
                await asyncio.wait({listening, asking}, return_when=asyncio.FIRST_COMPLETED)
                reason = listening.result() if listening.done() else asking.result()
            finally:
                # grpcio leaves an abandoned stream open.
                call.cancel()
                for task in (listening, asking):
                    task.cancel()
                await asyncio.gather(listening, asking, return_exceptions=True)
        # A standby refuses alike about once a second.
        if reason != self._last_reason:
            log.warning("assignments.broken", autoscaler=self._address, reason=reason)
        self._last_reason = reason
        return self._accepted

    async def _hear(self, call: "grpc.aio.UnaryStreamCall[Any, WatchAssignmentsResponse]") -> str:
        """Passes on what it says; returns why it says no more."""
        try:
            async with asyncio.timeout(FIRST_ANSWER_S) as limit:
                async for response in call:
                    limit.reschedule(None)
                    if not self._accept(_read(response)):
                        return "refused what it said"
                    if not self._accepted:
                        log.info(
                            "assignments.followed", autoscaler=self._address, epoch=response.epoch
                        )
                    self._accepted = True
                    self._last_reason = ""
        except grpc.aio.AioRpcError as error:
            return f"{error.code().name}: {error.details()}"
        except TimeoutError:
            return f"no answer in {FIRST_ANSWER_S:g} s"
        return "ended"

    async def _until_silent(self, channel: grpc.aio.Channel) -> str:
        """Asks for its health while another might lead; returns once there is no answer."""
        while True:
            await asyncio.sleep(ASK_EVERY_S)
            if not self._another:
                continue
            try:
                await health_pb2_grpc.HealthStub(channel).Check(
                    health_pb2.HealthCheckRequest(), timeout=ANSWER_WITHIN_S
                )
            except grpc.aio.AioRpcError as error:
                # Any other answer is one.
                if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                    return f"silent for {ANSWER_WITHIN_S:g} s"


def _read(response: WatchAssignmentsResponse) -> AssignedSet:
    return AssignedSet(tuple(response.assignments), response.revision, response.epoch)
