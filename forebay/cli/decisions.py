"""`forebay decisions`: what was decided on replica counts, and why."""

import asyncio
import json
import sys
from typing import Any

import grpc.aio

from forebay import addresses
from forebay.cli.failure import NOT_FOUND, CliError, raise_for
from forebay.cli.link import Link, Where, link_to
from forebay.cli.output import Output, print_json, print_table, say, to_plain
from forebay.cli.scaling_words import change, rule_word, short_name, when
from forebay.cli.show import resource_name
from forebay.stubs import autoscaler_service, deployment_service
from forebay.v1.autoscaler_pb2 import ListScaleDecisionsRequest, WatchScaleDecisionsRequest
from forebay.v1.deployment_pb2 import GetDeploymentRequest
from forebay.v1.scaling_pb2 import ScaleDecision

MOST = 1000

_COLUMNS = ("TIME", "DEPLOYMENT", "REPLICAS", "RULE", "REASON", "DECISION")
# Of all but the last two columns: lines that come one by one cannot be aligned by what follows.
_WIDTHS = (20, 20, 8, 23)
_NONE = "no decision has been made yet: a deployment's first one comes with its first replicas"
_OPEN_TIMEOUT_S = 0.5


async def run(name: str | None, follow: bool, limit: int, where: Where, output: Output) -> None:
    """Prints decisions, oldest first: the last ones, then those that are made.

    Raises:
        CliError: if they cannot be read, or there is no such deployment and no decision on it.
    """
    parent = resource_name(name) if name is not None else ""
    async with link_to(addresses.AUTOSCALER, where) as autoscaler:
        if follow:
            await _follow(parent, limit, autoscaler, output)
            return
        found = await newest(parent, limit, autoscaler)
        # Those on a deployment that was deleted are kept for a while.
        if name is not None and not found and not await newest(parent, 1, autoscaler):
            await _check_deployed(name, autoscaler)
    found.reverse()
    if output is Output.JSON:
        print_json([to_plain(decision) for decision in found])
    else:
        print_table(_COLUMNS, [_cells(decision) for decision in found], empty=_NONE)


async def newest(parent: str, limit: int, autoscaler: Link) -> list[ScaleDecision]:
    """At most so many decisions, newest first.

    Args:
        parent: resource name of a deployment; empty for all.
        limit: how many.
        autoscaler: who has them.

    Raises:
        CliError: if they cannot be read.
    """
    service = autoscaler_service(autoscaler.channel)
    found: list[ScaleDecision] = []
    token = ""
    while len(found) < limit:
        request = ListScaleDecisionsRequest(
            parent=parent, page_size=limit - len(found), page_token=token
        )
        page = await autoscaler.call(service.ListScaleDecisions, request)
        found += page.scale_decisions
        token = page.next_page_token
        if not token:
            break
    return found[:limit]


async def _check_deployed(name: str, autoscaler: Link) -> None:
    service = deployment_service(autoscaler.channel)
    request = GetDeploymentRequest(name=resource_name(name))
    try:
        await autoscaler.call(service.GetDeployment, request)
    except CliError as error:
        if error.exit_code != NOT_FOUND:
            raise
        raise CliError(
            f"there is no deployment {name}. `forebay list` shows what is deployed.", NOT_FOUND
        ) from None


async def _follow(parent: str, limit: int, autoscaler: Link, output: Output) -> None:
    service = autoscaler_service(autoscaler.channel)
    # Watched first and listed then, so that none is made unseen in between; some may come twice.
    call = service.WatchScaleDecisions(WatchScaleDecisionsRequest(parent=parent))
    try:
        await _opened(call)
        past = await newest(parent, limit, autoscaler) if limit else []
        past.reverse()
        if output is Output.TABLE:
            _write(_line(_COLUMNS))
        for decision in past:
            _show(decision, output)
        seen = {decision.name for decision in past}
        async for answer in call:
            if answer.scale_decision.name not in seen:
                _show(answer.scale_decision, output)
    except grpc.aio.AioRpcError as error:
        raise_for(error, autoscaler.service, autoscaler.address)
    finally:
        # grpcio does not end a stream that nobody reads any more.
        call.cancel()
    say("the autoscaler has ended the stream; start again to go on")


async def _opened(call: Any) -> None:
    """Waits until the autoscaler has taken the call; not for long, it may say so only later."""
    try:
        await asyncio.wait_for(call.initial_metadata(), _OPEN_TIMEOUT_S)
    except TimeoutError:
        pass


def _show(decision: ScaleDecision, output: Output) -> None:
    if output is Output.JSON:
        _write(json.dumps(to_plain(decision), ensure_ascii=False))
    else:
        _write(_line(_cells(decision)))


def _cells(decision: ScaleDecision) -> tuple[str, ...]:
    name = short_name(decision)
    return (
        when(decision),
        name.partition("/")[0],
        change(decision),
        rule_word(decision),
        decision.reason,
        name,
    )


def _line(cells: tuple[str, ...]) -> str:
    padded = [cell.ljust(width) for cell, width in zip(cells, _WIDTHS, strict=False)]
    return "  ".join([*padded, f"{cells[-2]}  [{cells[-1]}]"])


def _write(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
