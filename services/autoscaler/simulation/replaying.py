"""Runs of recorded arrivals against a deployment, spread over the machine's cores."""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context

import numpy as np

from forebay.v1.deployment_pb2 import Deployment
from services.autoscaler.assignments import spec_of
from services.autoscaler.capacity import Gpu, Node
from services.autoscaler.placement import never_fits
from services.autoscaler.simulation.deployed import Deployed
from services.autoscaler.simulation.pulse import Pulse
from services.autoscaler.simulation.service_times import ServiceTimes
from services.autoscaler.simulation.sim_autoscaler import CustomFunction
from services.autoscaler.simulation.startup import StartupModel
from services.autoscaler.simulation.tally import Tally, tally_of, together
from services.autoscaler.simulation.traces import Key, Series, Trace
from services.autoscaler.simulation.world import World

FOLLOWED_S = 600.0
"""How far beyond its end a run follows the requests that are still there, at a time."""

BATCH = 60_000
"""Requests of one batch of deployments, about 0.2 s of work."""

WORK_PER_DEPLOYMENT = 5_000
"""What a deployment costs beside its requests, in requests."""

PLENTY = 1e15
GPU_MEMORY_BYTES = 80 << 30
"""Of each GPU: of the largest that are common."""

ALONE = 500_000
"""Below so many requests a second process costs more than it saves."""


@dataclass(frozen=True)
class Setting:
    """What all deployments of a comparison share.

    Attributes:
        trace: the arrivals.
        duration_s: how long arrivals go on.
        services: service times by the trace's keys; the empty key stands for all others.
        startup: how replicas start.
        nodes: where they may go; empty: there is always room.
        speed_up: how much faster arrivals come than recorded.
        repeat: how many times the trace is played, one after the other.
        evenly: whether the arrivals of a minute are spread evenly, and not at random.
        seed: for everything that is drawn.
        pulse: how the autoscaler ticks.
        functions: of custom policies.
    """

    trace: Trace
    duration_s: float
    services: Mapping[Key, ServiceTimes]
    startup: StartupModel = StartupModel()  # noqa: RUF009, it is frozen
    nodes: tuple[Node, ...] = ()
    speed_up: float = 1.0
    repeat: int = 1
    evenly: bool = False
    seed: int = 0
    pulse: Pulse = Pulse()  # noqa: RUF009, it is frozen
    functions: Mapping[str, CustomFunction] = field(default_factory=dict)


def replay(
    declared: Deployment,
    setting: Setting,
    jobs: int | None = None,
    told: Callable[[float], None] = lambda _: None,
) -> Tally:
    """What comes of a deployment, or of one like it for each series of the trace.

    Args:
        declared: with its defaults filled in.
        setting: everything else.
        jobs: processes to use; None: as many as there are cores.
        told: called with the share that is done, 0 to 1.

    Raises:
        InvariantError: if the autoscaler does what it must never do.
    """
    if setting.nodes:
        return _with_nodes(declared, setting)
    batches = _batches(setting)
    work = sum(s.count for s in setting.trace.series) * setting.repeat
    jobs = min(jobs or os.cpu_count() or 1, len(batches))
    value = declared.SerializeToString()
    if jobs < 2 or work < ALONE or setting.functions:
        found = [_told(_batch(value, setting, batch), i, batches, told) for i, batch in batches]
    else:
        with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
            waiting = [pool.submit(_batch, value, _only(setting, b), b) for _, b in batches]
            found = [_told(done.result(), i, batches, told) for i, done in enumerate(waiting)]
    # In the trace's order, so that the number of processes changes nothing.
    by_number = {number: tally for batch in found for number, tally in batch}
    return together(by_number[number] for number in sorted(by_number))


def _told(
    found: list[tuple[int, Tally]],
    done: int,
    batches: Sequence[object],
    told: Callable[[float], None],
) -> list[tuple[int, Tally]]:
    told((done + 1) / len(batches))
    return found


def _batches(setting: Setting) -> list[tuple[int, list[int]]]:
    """Numbers of series in portions of about the same work, the largest first."""
    series = setting.trace.series
    order = sorted(range(len(series)), key=lambda i: -series[i].count)
    batches: list[list[int]] = []
    work = BATCH
    for number in order:
        if work >= BATCH:
            batches.append([])
            work = 0
        batches[-1].append(number)
        work += series[number].count * setting.repeat + WORK_PER_DEPLOYMENT
    return list(enumerate(batches))


def _only(setting: Setting, numbers: Iterable[int]) -> Setting:
    """The setting with no more of the trace than some series: what another process is sent."""
    wanted = set(numbers)
    series = tuple(s if i in wanted else Series() for i, s in enumerate(setting.trace.series))
    keys = {series[i].key for i in wanted} | {()}
    services = {key: times for key, times in setting.services.items() if key in keys}
    trace = Trace(series, setting.trace.duration_s)
    return Setting(
        trace,
        setting.duration_s,
        services,
        setting.startup,
        setting.nodes,
        setting.speed_up,
        setting.repeat,
        setting.evenly,
        setting.seed,
        setting.pulse,
    )


def _batch(value: bytes, setting: Setting, numbers: Sequence[int]) -> list[tuple[int, Tally]]:
    declared = Deployment.FromString(value)
    # There is room for all, whatever they need.
    declared.resources.Clear()
    declared.ClearField("volumes")
    return [(number, _alone(declared, setting, number)) for number in numbers]


def _alone(declared: Deployment, setting: Setting, number: int) -> Tally:
    """A run of one series on a node that takes any number of replicas."""
    world = World(setting.pulse, functions=setting.functions, seed=setting.seed, keep_journal=False)
    world.mesh.add_node(Node("any", 1_000_000_000))
    world.mesh.unlimited = True
    deployed = _deployed(declared, setting, number)
    world.lead()
    world.declare(deployed)
    world.replay(_arrivals(setting, number).tolist(), deployed)
    _finish(world, setting.duration_s)
    return tally_of(deployed, setting.duration_s, world.decisions)


def _with_nodes(declared: Deployment, setting: Setting) -> Tally:
    """A run of all series that share the nodes."""
    world = World(setting.pulse, functions=setting.functions, seed=setting.seed, keep_journal=False)
    for node in setting.nodes:
        world.mesh.add_node(node)
    world.lead()
    several = len(setting.trace.series) > 1
    deployed: list[Deployed] = []
    for number in range(len(setting.trace.series)):
        own = Deployment()
        own.CopyFrom(declared)
        if several:
            own.name = f"{declared.name}-{number + 1}"
        deployed.append(_deployed(own, setting, number))
        world.declare(deployed[-1])
    times = [_arrivals(setting, number) for number in range(len(deployed))]
    owners = np.repeat(np.arange(len(deployed)), [len(t) for t in times])
    every = np.concatenate(times)
    order = np.argsort(every, kind="stable")
    world.replay(every[order].tolist(), [deployed[i] for i in owners[order].tolist()])
    _finish(world, setting.duration_s)
    total = together(tally_of(d, setting.duration_s, 0) for d in deployed)
    total.decisions = world.decisions
    return total


def _deployed(declared: Deployment, setting: Setting, number: int) -> Deployed:
    series = setting.trace.series[number]
    services = setting.services.get(series.key) or setting.services.get(())
    times = services if services is not None else ServiceTimes()
    return Deployed(declared, times.draws((setting.seed, number, 1)), setting.startup)


def _arrivals(setting: Setting, number: int) -> "np.ndarray":
    """Instants in seconds at which requests of a series arrive."""
    length_s = setting.trace.duration_s
    series = setting.trace.series[number]
    parts = [
        series.arrivals((setting.seed, number, 0, turn), setting.evenly) + turn * length_s
        for turn in range(setting.repeat)
    ]
    times = np.concatenate(parts) / setting.speed_up
    return times[times < setting.duration_s]


def _finish(world: World, duration_s: float) -> None:
    world.run(duration_s)
    # Whoever came in time is followed to the end; nobody waits for ever.
    until_s = duration_s
    patience_s = max(d.patience_s for d in world.mesh.deployed.values())
    while world.busy and until_s < duration_s + 10 * patience_s:
        until_s += min(FOLLOWED_S, patience_s)
        world.run(until_s)


def no_place(declared: Deployment, nodes: Sequence[Node]) -> str:
    """Why no replica can ever have a place on these nodes; empty if one can, or there are none."""
    return never_fits(spec_of(declared).demand, nodes)


def nodes_alike(count: int, slots: int, gpus: int, declared: Deployment) -> tuple[Node, ...]:
    """Nodes with slots and GPUs of the type a deployment asks for; there is enough of all else."""
    resources = declared.resources
    custom = tuple((name, PLENTY) for name in sorted(resources.custom))
    product = resources.accelerator_type or "simulated GPU"
    return tuple(
        Node(
            name,
            slots,
            tuple(Gpu(f"{name}/{i}", GPU_MEMORY_BYTES, 0, product) for i in range(gpus)),
            "",
            PLENTY,
            int(PLENTY),
            custom,
            tuple((volume.name, False) for volume in declared.volumes),
        )
        for name in (f"node-{number}" for number in range(1, count + 1))
    )
