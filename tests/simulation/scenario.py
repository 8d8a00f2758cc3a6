"""Scenario files: a header in plain sentences, and the transcript of what then happens."""

import itertools
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from forebay.deployment_file import parse
from forebay.v1.deployment_pb2 import Deployment
from services.autoscaler import deployment_rules
from services.autoscaler.capacity import Gpu, Node
from services.autoscaler.simulation.deployed import Deployed
from services.autoscaler.simulation.machines import Machines, Provider
from services.autoscaler.simulation.pulse import Pulse
from services.autoscaler.simulation.startup import StartupModel
from services.autoscaler.simulation.users import ClosedLoop
from services.autoscaler.simulation.world import World
from tests.simulation.expectations import Expectation, expectation
from tests.simulation.story import Story

SEPARATOR = "----"
_DIGEST = "sha256:" + "0" * 64
_SECONDS = r"([\d.]+) s"


class ScenarioError(Exception):
    """A header that is not understood."""


@dataclass
class Scenario:
    """What a header says.

    Attributes:
        title: its first line.
        values: of the deployment files, by name.
        lines: the sentences that are acted on, in order.
        expectations: what must come true, whatever the transcript says.
        until_s: when the run ends.
    """

    title: str
    values: dict[str, dict[str, Any]] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)
    expectations: list[Expectation] = field(default_factory=list)
    until_s: float = 0.0


def read(path: Path) -> tuple[str, str]:
    """Header and transcript of a file; the transcript is empty if there is none yet."""
    header, _, transcript = path.read_text().partition(f"{SEPARATOR}\n")
    return header, transcript


def scenario_of(header: str) -> Scenario:
    """What a header says."""
    lines = header.splitlines()
    made = Scenario(lines[0])
    sentences = itertools.dropwhile(lambda line: line != "deployment:", lines)
    block: list[str] | None = None
    for line in [*list(sentences), "end"]:
        if block is not None and line.startswith("    "):
            block.append(line)
            continue
        if block is not None:
            values = yaml.safe_load("\n".join(block))
            made.values[values["name"]] = values
            block = None
        if line == "deployment:":
            block = []
        elif line.startswith("expects "):
            made.expectations.append(expectation(line))
        elif match := re.fullmatch(f"runs for {_SECONDS}", line):
            made.until_s = float(match[1])
        elif line and line != "end":
            made.lines.append(line)
    return made


def declared(values: dict[str, Any], generation: int = 1) -> Deployment:
    """The deployment that a file of these values declares, as the autoscaler keeps it."""
    spec = parse(yaml.safe_dump({"model": "model", **values}), "scenario").spec
    made = deployment_rules.declared(spec.to_proto(_DIGEST))
    made.name = f"deployments/{values['name']}"
    made.generation = generation
    return made


class Run:
    """One run of a scenario."""

    def __init__(self, scenario: Scenario, every_tick: bool = False) -> None:
        self.scenario = scenario
        self.targets: dict[str, list[tuple[float, int]]] = {}
        self._deployed: dict[str, Deployed] = {}
        self._services: dict[str, float] = {}
        self._startups: dict[str, StartupModel] = {}
        self._later: list[Callable[[], None]] = []
        self._provider: Provider | None = None
        self._shows_requests = True
        self._levels_s = 0.0
        self._settings: dict[str, float] = {}
        for line in scenario.lines:
            self._act(line)
        self.world = self._world(every_tick)
        self.story = Story(self.world, self._shows_requests)

    def play(self) -> list[str]:
        """Lets it happen; returns the transcript."""
        world = self.world
        world.lead()
        for name, values in self.scenario.values.items():
            self._create(name, values)
        for act in self._later:
            act()
        if self._levels_s:
            world.mesh.agenda.at(self._levels_s, self._show_levels)
        world.run(self.scenario.until_s)
        self.story.flush()
        return self.story.lines

    def _world(self, every_tick: bool) -> World:
        settings = self._settings
        pulse = Pulse(
            lag_s=settings.get("lag", 1.0),
            node_grace_s=settings.get("grace", 10.0),
            every_tick=every_tick,
            begun_s=settings.get("begun", 0.0),
        )
        machines = None
        if self._provider is not None or "idle" in settings or "light" in settings:
            machines = Machines(
                self._provider,
                settings.get("idle", 300.0),
                consolidation_delay_s=settings.get("light"),
            )
        return World(pulse, machines)

    def _create(self, name: str, values: dict[str, Any]) -> None:
        deployed = Deployed(
            declared(values),
            itertools.repeat(self._services.get(name, 1.0)),
            self._startups.get(name, StartupModel()),
        )
        self._deployed[name] = deployed
        self.world.declare(deployed)

    def _show_levels(self) -> None:
        for name, deployed in self._deployed.items():
            users = f"{deployed.users.active} users, " if deployed.users else ""
            targets = [str(a.targets.get(name)) for a in self.world.autoscalers]
            self.story.say(
                f"{name}: {users}{deployed.queued} waiting, {deployed.ongoing} running, "
                f"{deployed.ready} ready of {deployed.assigned}, "
                f"target {', '.join(targets) or 'unknown: nobody leads'}"
            )
        self.world.mesh.agenda.after(self._levels_s, self._show_levels)

    def _act(self, line: str) -> None:
        for pattern, act in _SENTENCES:
            match = re.fullmatch(pattern, line)
            if match is not None:
                act(self, *match.groups())
                return
        raise ScenarioError(f"not understood: {line}")

    def _at(self, at: str, act: Callable[[], None]) -> None:
        self._later.append(lambda: self.world.mesh.agenda.at(float(at), act))

    def _send(self, name: str, count: str, service: str | None) -> None:
        deployed = self._deployed[name]
        usual = deployed.services
        if service is not None:
            deployed.services = itertools.repeat(float(service))
        for _ in range(1 if count in ("a", "one") else int(count)):
            self.world.mesh.arrive(deployed)
        deployed.services = usual

    def _requests(self, at: str, count: str, name: str, service: str | None) -> None:
        self._at(at, lambda: self._send(name, count, service))

    def _stream(self, start: str, end: str, name: str, every: str) -> None:
        number = round((float(end) - float(start)) / float(every))
        for i in range(number):
            self._requests(str(float(start) + i * float(every)), "one", name, None)

    def _poison(self, at: str, name: str) -> None:
        def send() -> None:
            deployed = self._deployed[name]
            deployed.poison.add(deployed.accepted)
            self.world.mesh.arrive(deployed)

        self._at(at, send)

    def _users(self, at: str, name: str, count: str) -> None:
        def become() -> None:
            deployed = self._deployed[name]
            deployed.users = deployed.users or ClosedLoop()
            deployed.users.become(self.world.mesh, deployed, int(count))
            self.story.say(f"{name} has {count} users")

        self._at(at, become)

    def _change(self, at: str, name: str, text: str) -> None:
        def change() -> None:
            values = self.scenario.values[name] | yaml.safe_load(text)
            self.story.say(f"{name} is declared anew: {text}")
            self.world.change(declared(values))

        self._at(at, change)

    def _pin(self, at: str, name: str, count: str | None) -> None:
        def pin() -> None:
            made = Deployment()
            made.CopyFrom(self._deployed[name].declared)
            if count is None:
                made.ClearField("pinned_replicas")
            else:
                made.pinned_replicas = int(count)
            self.story.say(f"{name} is set to {count} by hand" if count else f"{name} is released")
            self.world.change(made)

        self._at(at, pin)

    def _delete(self, at: str, name: str) -> None:
        def delete() -> None:
            self.story.say(f"{name} is deleted")
            self.world.delete(name)

        self._at(at, delete)

    def _metrics(self, at: str, word: str) -> None:
        def away() -> None:
            self.story.say(f"metrics {word}")
            self.world.see_nothing(word == "goes away")

        self._at(at, away)

    def _queue(self, at: str, name: str, word: str) -> None:
        def missing() -> None:
            self.story.say(f"the queue of {name} {word}")
            self._deployed[name].consumer_missing = word == "cannot be asked"
            self.world.mesh.touched.add(self._deployed[name])

        self._at(at, missing)

    def _node(self, at: str, node: str, word: str) -> None:
        def change() -> None:
            mesh = self.world.mesh
            if word == "is back":
                mesh.return_node(node)
            else:
                mesh.lose_node(node, dies=word == "dies")

        self._at(at, change)

    def _gpu(self, at: str, number: str, node: str, fault: str | None) -> None:
        self._at(at, lambda: self.world.fail_gpu(node, int(number), fault or ""))

    def _autoscaler(self, at: str, word: str) -> None:
        def change() -> None:
            self.story.say(f"the autoscaler {word}")
            if word == "restarts":
                self.world.restart()
            else:
                self.world.fail_over()

        self._at(at, change)

    def _second(self, at: str) -> None:
        def second() -> None:
            self.story.say("a second autoscaler leads, and the first one does not know")
            self.world.lead("the second autoscaler", known_before=True)

        self._at(at, second)

    def _nodes(self, names: str, what: str) -> None:
        self._later.extend(
            lambda name=name: self.world.mesh.add_node(node(name, what))  # type: ignore[misc]
            for name in names_of(names)
        )

    def _second_agent(self, name: str, first: str) -> None:
        def add() -> None:
            mesh = self.world.mesh
            mesh.add_node(replace(mesh.nodes[first].node, name=name))

        self._later.append(add)

    def _provides(self, name: str, what: str, delay: str, most: str) -> None:
        self._provider = Provider(node(name, what), float(delay), int(most))

    def _set(self, name: str, value: str) -> None:
        self._settings[name] = float(value)

    def _begins(self, instant: str) -> None:
        self._settings["begun"] = datetime.fromisoformat(f"{instant}+00:00").timestamp()

    def _starts_in(self, name: str, seconds: str) -> None:
        self._startups[name] = StartupModel(float(seconds))

    def _never_starts(self, name: str) -> None:
        self._startups[name] = StartupModel(never=True)

    def _crashes(self, name: str, seconds: str) -> None:
        self._startups[name] = StartupModel(crash_after_s=float(seconds))

    def _takes(self, name: str, seconds: str) -> None:
        self._services[name] = float(seconds)

    def _shows_no_requests(self) -> None:
        self._shows_requests = False

    def _shows_levels(self, seconds: str) -> None:
        self._levels_s = float(seconds)


def node(name: str, what: str) -> Node:
    """A node that has, for example, `2 slots, 4 NVIDIA L4 GPUs, 8 CPUs, 1 camera`."""
    has: dict[str, float] = {}
    gpus: list[Gpu] = []
    for part in what.split(", "):
        count, _, rest = part.partition(" ")
        if rest.endswith(("GPU", "GPUs")):
            product = rest.rpartition(" ")[0]
            start = len(gpus)
            gpus += [
                Gpu(f"{name}/{i}", 16 << 30, 0, product) for i in range(start, start + int(count))
            ]
        else:
            has[rest.removesuffix("s")] = float(count)
    slots, cpus = int(has.pop("slot", 0)), has.pop("CPU", 0.0)
    return Node(name, slots, tuple(gpus), "", cpus, 0, tuple(sorted(has.items())))


def names_of(names: str) -> Iterator[str]:
    """`a`, `a and b`, or `n1 to n4`."""
    if match := re.fullmatch(r"([a-z]+)(\d+) to \1(\d+)", names):
        yield from (f"{match[1]}{i}" for i in range(int(match[2]), int(match[3]) + 1))
    else:
        yield from names.split(" and ")


_AT = f"at {_SECONDS}: "
_SENTENCES: list[tuple[str, Callable[..., None]]] = [
    (rf"a request to (\S+) takes {_SECONDS}", Run._takes),
    (rf"a replica of (\S+) starts in {_SECONDS}", Run._starts_in),
    (r"a replica of (\S+) never gets ready", Run._never_starts),
    (rf"a replica of (\S+) crashes after {_SECONDS}", Run._crashes),
    (r"nodes? (.+?) (?:has|have|each have) (.+)", Run._nodes),
    (r"node (\S+) is a second agent on the machine of node (\S+)", Run._second_agent),
    (rf"a provider adds nodes like (\S+) with (.+) after {_SECONDS}, at most (\d+)", Run._provides),
    (rf"(idle) nodes are released after {_SECONDS}", Run._set),
    (rf"(light)ly used nodes are emptied after {_SECONDS}", Run._set),
    (rf"the (grace) period of nodes is {_SECONDS}", Run._set),
    (rf"queues are seen with a (lag) of {_SECONDS}", Run._set),
    (r"the run begins at (\S+) UTC", Run._begins),
    (r"does not show requests", Run._shows_no_requests),
    (rf"shows levels every {_SECONDS}", Run._shows_levels),
    (rf"{_AT}(\d+|one) requests? to (\S+)(?:, {_SECONDS} each)?", Run._requests),
    (rf"from {_SECONDS} to {_SECONDS}: a request to (\S+) every {_SECONDS}", Run._stream),
    (rf"{_AT}a poison request to (\S+)", Run._poison),
    (rf"{_AT}(\S+) has (\d+) users", Run._users),
    (rf"{_AT}(\S+) is declared anew: (.+)", Run._change),
    (rf"{_AT}(\S+) is set to (\d+) by hand", Run._pin),
    (rf"{_AT}(\S+) is released()", lambda run, at, name, _: run._pin(at, name, None)),
    (rf"{_AT}(\S+) is deleted", Run._delete),
    (rf"{_AT}metrics (goes away|is back)", Run._metrics),
    (rf"{_AT}the queue of (\S+) (cannot be asked|answers again)", Run._queue),
    (rf"{_AT}node (\S+) (is cut off|dies|is back)", Run._node),
    (rf"{_AT}GPU (\d+) of node (\S+) (?:fails: (.+)|works again)", Run._gpu),
    (rf"{_AT}the autoscaler (restarts|dies)", Run._autoscaler),
    (rf"{_AT}a second autoscaler leads", Run._second),
]
