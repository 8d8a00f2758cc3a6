"""Follows what the leading autoscaler wants this node to run.

Any number of autoscalers may run and one leads: each is dialled in turn, and whoever answers with
something that the agent accepts is listened to until it falls silent. A standby refuses; so does
the agent, if an autoscaler that was replaced does not know it yet.
"""

import asyncio
import itertools
import random
from collections.abc import Callable, Sequence

import grpc.aio
import structlog

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

_OPTIONS = list(
    {
        **dict(CHANNEL_OPTIONS),
        # A dial is a dial: the shared pool would make it wait for the pauses of one before it.
        "grpc.use_local_subchannel_pool": 1,
        # Nothing may change for hours, and a frozen leader must be left within 15 s. Servers of the
        # mesh take a ping every 10 s.
        "grpc.keepalive_time_ms": 10_500,
        "grpc.keepalive_timeout_ms": 3_500,
        "grpc.http2.max_pings_without_data": 0,
    }.items()
)

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
    watches = [_Watch(address, node, accept) for address in addresses]
    vain_count = 0
    for watch in itertools.cycle(watches):
        vain_count = 0 if await watch.listen() else vain_count + 1
        await asyncio.sleep(pause_s(vain_count, len(watches), random.random()))  # noqa: S311


class _Watch:
    """What there is to know of one autoscaler."""

    def __init__(self, address: str, node: str, accept: Accept) -> None:
        self._address = address
        self._request = WatchAssignmentsRequest(node=names.node_name(node))
        self._accept = accept
        self._last_reason = ""

    async def listen(self) -> bool:
        """Listens until it says no more; returns whether anything it said was accepted."""
        accepted = False
        async with grpc.aio.insecure_channel(self._address, options=_OPTIONS) as channel:
            call = AutoscalerServiceStub(channel).WatchAssignments(self._request)
            reason = "ended"
            try:
                async with asyncio.timeout(FIRST_ANSWER_S) as limit:
                    async for response in call:
                        limit.reschedule(None)
                        if not self._accept(_read(response)):
                            reason = "refused what it said"
                            break
                        if not accepted:
                            log.info(
                                "assignments.followed",
                                autoscaler=self._address,
                                epoch=response.epoch,
                            )
                        accepted = True
                        self._last_reason = ""
            except grpc.aio.AioRpcError as error:
                reason = f"{error.code().name}: {error.details()}"
            except TimeoutError:
                reason = f"no answer in {FIRST_ANSWER_S:g} s"
            finally:
                # grpcio leaves an abandoned stream open.
                call.cancel()
        # A standby refuses alike about once a second.
        if reason != self._last_reason:
            log.warning("assignments.broken", autoscaler=self._address, reason=reason)
        self._last_reason = reason
        return accepted


def _read(response: WatchAssignmentsResponse) -> AssignedSet:
    return AssignedSet(tuple(response.assignments), response.revision, response.epoch)
