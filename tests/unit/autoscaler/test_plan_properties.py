"""What holds whatever happens: meshes, loads and failures drawn at random."""

import random
from dataclasses import replace

import pytest

from services.autoscaler.capacity import Capacity, Demand, Gpu, Node
from services.autoscaler.consolidation import Consolidation
from services.autoscaler.placement import Strategy
from services.autoscaler.plan import Plan
from services.autoscaler.view import State
from tests.support.small_mesh import SmallMesh

GIB = 1 << 30
TICKS = 60
DEMANDS = (
    Demand(),
    Demand(cpus=1.5, memory_bytes=3 * GIB),
    Demand(0.1),
    Demand(0.3, 4 * GIB),
    Demand(0.5, accelerator_type="l4"),
    Demand(1.0),
    Demand(2.0, 20 * GIB),
    Demand(custom=(("license", 1.0),)),
)


def random_mesh(rng: random.Random) -> SmallMesh:
    nodes = []
    for i in range(rng.randint(1, 8)):
        product = rng.choice(["NVIDIA L4", "NVIDIA L40S"])
        gpus = tuple(
            Gpu(f"n{i}-{g}", 16 * GIB, rng.choice([0, 2 * GIB]), product)
            for g in range(rng.randint(0, 4))
        )
        custom = (("license", float(rng.randint(1, 3))),) if rng.random() < 0.5 else ()
        nodes.append(Node(f"n{i}", rng.randint(0, 4), gpus, "", 4.0, 16 * GIB, custom))
    mesh = SmallMesh(nodes)
    mesh.slow_to_stop = True
    for i in range(rng.randint(1, 10)):
        mesh.declare(f"d{i}", rng.randint(0, 4), rng.choice(DEMANDS), rng.choice(list(Strategy)))
    return mesh


def shake(mesh: SmallMesh, rng: random.Random) -> None:
    """Something happens."""
    for replica_id in mesh.roster.by_id:
        if rng.random() < 0.3:
            mesh.states[replica_id] = rng.choice([State.READY, State.STARTING, State.FAILED])
        mesh.ongoing[replica_id] = rng.choice([0, 0, 1, 5])
    for replica_id in list(mesh.drains):
        if rng.random() < 0.5:
            del mesh.drains[replica_id]
    name = rng.choice(list(mesh.specs))
    what = rng.random()
    if what < 0.3:
        mesh.targets[name] = rng.randint(0, 5)
    elif what < 0.4:
        spec = mesh.specs[name]
        mesh.declare(
            name,
            mesh.targets[name],
            rng.choice(DEMANDS),
            spec.strategy,
            spec.generation + 1,
        )


def shake_gpus(mesh: SmallMesh, rng: random.Random) -> None:
    """A GPU fails, or works again."""
    with_gpus = [i for i, node in enumerate(mesh.nodes) if node.gpus]
    if not with_gpus or rng.random() > 0.3:
        return
    i = rng.choice(with_gpus)
    gpus = list(mesh.nodes[i].gpus)
    g = rng.randrange(len(gpus))
    gpus[g] = replace(gpus[g], fault="" if gpus[g].fault else "Xid 79")
    mesh.nodes[i] = replace(mesh.nodes[i], gpus=tuple(gpus))


def check_gpus(mesh: SmallMesh) -> None:
    """Nothing is assigned to a GPU that is cordoned."""
    faulty = {gpu.uuid for node in mesh.nodes for gpu in node.gpus if gpu.fault}
    for replica_id, assigned in mesh.roster.by_id.items():
        assert faulty.isdisjoint(assigned.share.gpu_uuids), replica_id


def check_shares(mesh: SmallMesh) -> None:
    """No node and no GPU holds more than it has; a fraction never straddles two GPUs."""
    shares = [r.share for r in mesh.roster.by_id.values()]
    shares += [share for _, share in mesh.drains.values()]
    by_gpu: dict[str, list[float]] = {}
    for share in shares:
        assert len(share.gpu_uuids) == len(set(share.gpu_uuids)) == share.demand.gpu_count
        for uuid in share.gpu_uuids:
            assert uuid.startswith(f"{share.node}-")
            by_gpu.setdefault(uuid, []).append(share.demand.gpus)
    for held in by_gpu.values():
        assert len(held) == 1 or (max(held) < 1 and sum(held) <= 1 + 1e-9), held
    for load in Capacity(mesh.nodes, shares).loads.values():
        node = load.node
        assert load.slots_used <= node.slots
        assert load.cpus_used <= node.cpus + 1e-9
        assert load.memory_used_bytes <= node.memory_bytes
        assert all(load.custom_used.get(name, 0) <= has + 1e-9 for name, has in node.custom)
        for gpu, declared in zip(node.gpus, load.gpu_bytes, strict=True):
            assert declared <= gpu.memory_total_bytes


def check_victims(mesh: SmallMesh, made: Plan) -> None:
    """Of a generation that stays, no busy one goes while an idle one stays.

    One whose GPU is cordoned works on nothing that could end.
    """
    for name, step in made.steps.items():
        spec = mesh.specs[name]
        stranded = dict(made.stranded.get(name, ()))
        same = [r for r, _ in step.remove if r.generation == spec.generation]
        same = [r for r in same if r.replica_id not in stranded]
        busy = [r for r in same if r.state is State.READY and r.ongoing_count]
        stays = [
            r
            for r in step.keep
            if r.generation == spec.generation and r.state is State.READY and not r.ongoing_count
        ]
        assert not (busy and stays), (name, busy, stays)


@pytest.mark.parametrize("seed", range(40))
def test_one_owner_per_share_and_no_busy_victim_whatever_happens(seed: int) -> None:
    rng = random.Random(seed)
    mesh = random_mesh(rng)
    consolidation = Consolidation(3.0, True)
    for tick in range(TICKS):
        shake(mesh, rng)
        shake_gpus(mesh, rng)
        made = mesh.plan(evacuating=consolidation.evacuating)
        consolidation.look(float(tick), made, mesh.specs, mesh.roster, mesh.view())
        check_victims(mesh, made)
        mesh.apply(made)
        check_shares(mesh)
        check_gpus(mesh)


@pytest.mark.parametrize("seed", range(40))
def test_comes_to_rest_and_then_plans_nothing(seed: int) -> None:
    rng = random.Random(seed)
    mesh = random_mesh(rng)
    for _ in range(10):
        shake(mesh, rng)
        shake_gpus(mesh, rng)
        mesh.apply(mesh.plan())
    mesh.ongoing = {}
    for _ in range(60):
        mesh.all_ready()
        mesh.stop_all()
        made = mesh.plan()
        if not made.changes:
            break
        mesh.apply(made)
        check_shares(mesh)
    assert not made.changes
    for name, step in made.steps.items():
        assert len(step.keep) + step.unplaced == mesh.targets[name] or step.unplaced
        assert len(step.keep) <= mesh.targets[name] + 1


@pytest.mark.parametrize("seed", range(20))
def test_consolidation_ends_and_empties_no_node_twice(seed: int) -> None:
    rng = random.Random(seed)
    mesh = random_mesh(rng)
    mesh.slow_to_stop = False
    for name in mesh.targets:
        mesh.targets[name] = rng.randint(2, 5)
    mesh.apply(mesh.plan())
    for name in mesh.targets:
        mesh.targets[name] = rng.randint(0, 2)
    consolidation = Consolidation(2.0, True)
    emptied: list[str] = []
    for tick in range(400):
        before = consolidation.evacuating
        made = mesh.plan(evacuating=before)
        consolidation.look(float(tick), made, mesh.specs, mesh.roster, mesh.view())
        emptied += consolidation.evacuating - before
        mesh.apply(made)
        mesh.all_ready()
        for name, step in made.steps.items():
            ready = sum(1 for r in step.keep if r.state is State.READY)
            assert ready >= mesh.targets[name] or tick < 3 or step.unplaced
    assert len(emptied) == len(set(emptied))
    assert not consolidation.evacuating
