"""What a scenario expects, whatever its transcript says."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from forebay.v1.scaling_pb2 import ScaleDecision

if TYPE_CHECKING:
    from tests.simulation.scenario import Run

_NUMBER = r"([\d.]+)"
_TIMES = rf"(?:at {_NUMBER} s|from {_NUMBER} s to {_NUMBER} s|always)"


@dataclass(frozen=True)
class Expectation:
    """A sentence, and what tells whether it came true; empty if it did."""

    sentence: str
    failure: Callable[["Run"], str]


def expectation(sentence: str) -> Expectation:
    """What a sentence expects."""
    for pattern, failure in _KINDS:
        match = re.fullmatch(f"expects {pattern}", sentence)
        if match is not None:
            return Expectation(sentence, _with(failure, match.groups()))
    raise ValueError(f"not understood: {sentence}")


def _with(failure: Callable[..., str], words: tuple[str | None, ...]) -> Callable[["Run"], str]:
    return lambda run: failure(run, *words)


def _levels(
    run: "Run", name: str, low: str, high: str | None, what: str, *times: str | None
) -> str:
    at, start, end = times
    first_s = float(at or start or 0.0)
    last_s = float(at or end or run.scenario.until_s)
    position = 2 if what == "ready" else 1
    least, most = int(low), int(high or low)
    levels = run.world.mesh.deployed[name].levels
    standing = [level for level in levels if level[0] <= first_s]
    seen = [(first_s, standing[-1][position] if standing else 0)]
    seen += [(level[0], level[position]) for level in levels if first_s < level[0] <= last_s]
    wrong = [f"{count} at {at_s:g} s" for at_s, count in seen if not least <= count <= most]
    return f"it has {', '.join(wrong[:5])}" if wrong else ""


def _served(run: "Run", name: str, count: str, by: str | None) -> str:
    deployed = run.world.mesh.deployed[name]
    ends = [
        arrived + waited + service
        for arrived, waited, service in zip(
            deployed.arrived, deployed.waits_s, deployed.service_s, strict=False
        )
    ]
    if deployed.served != int(count):
        return f"it served {deployed.served}"
    late = [end for end in ends if by and end > float(by)]
    return f"the last one ended at {max(late):g} s" if late else ""


def _count(run: "Run", name: str, count: str, what: str) -> str:
    deployed = run.world.mesh.deployed[name]
    found = {
        "starts": deployed.starts,
        "ups": deployed.ups,
        "downs": deployed.downs,
        "poison": deployed.ended_poison,
    }[what]
    return f"there are {found}" if found != int(count) else ""


def _decision(run: "Run", no: str, rule: str, name: str, *times: str | None) -> str:
    at, start, end = times
    first_s, last_s = float(at or start or 0.0), float(at or end or run.scenario.until_s)
    found = [
        decision.now_s
        for owner, decision in run.world.journal
        if owner == name
        and ScaleDecision.Rule.Name(decision.rule) == f"RULE_{rule.upper()}"
        and first_s <= decision.now_s <= last_s
    ]
    if no == "no":
        return f"there is one at {found[0]:g} s" if found else ""
    return "" if found else "there is none"


def _waits(run: "Run", name: str, most: str) -> str:
    longest_s = max(run.world.mesh.deployed[name].waits_s, default=0.0)
    return f"one waits {longest_s:g} s" if longest_s > float(most) + 1e-6 else ""


def _nodes(run: "Run", count: str, at: str) -> str:
    del at
    found = len(run.world.mesh.nodes)
    return f"there are {found}" if found != int(count) else ""


_KINDS: list[tuple[str, Callable[..., str]]] = [
    (rf"(\S+) to have (\d+)(?: to (\d+))? (replicas|ready),? {_TIMES}", _levels),
    (rf"(\S+) to serve (\d+) requests?(?: by {_NUMBER} s)?", _served),
    (r"(\S+) to have (\d+) (starts|ups|downs|poison) in all", _count),
    (rf"(a|no) decision by (\S+) for (\S+) {_TIMES}", _decision),
    (rf"no request to (\S+) to wait longer than {_NUMBER} s", _waits),
    (r"(\d+) nodes? at the (end)", _nodes),
]
