"""`forebay scale`, `decisions`, `explain`, `demand` and what `deploy` and `list` say of scaling."""

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from forebay.v1.autoscaler_pb2 import NodeDemand
from forebay.v1.deployment_pb2 import Deployment, ReplicaResources
from forebay.v1.node_pb2 import Gpu, Node, ReplicaStatus
from forebay.v1.scaling_pb2 import ScaleDecision, ScaleSignals, ScaleStep, ScalingPolicy
from services.autoscaler import deployment_rules as rules
from tests.support.eventually import eventually
from tests.support.forebay_up import ROOT, Ran, run_forebay, write_echo
from tests.support.listed_mesh import ListedMesh, listed_mesh

DIGEST = "sha256:" + "a" * 64


@pytest.fixture
async def mesh() -> AsyncIterator[ListedMesh]:
    async with listed_mesh() as running:
        yield running


async def forebay(mesh: ListedMesh, *arguments: str | Path, metrics: bool = False) -> Ran:
    where = ["--autoscaler", mesh.address] if arguments[0] != "nodes" else []
    where += ["--metrics", mesh.address] if metrics else []
    return await asyncio.to_thread(run_forebay, *arguments, *where)


def policy(**fields: Any) -> ScalingPolicy:
    kind = {"ongoing_requests": {"target_ongoing_requests": 2}}
    made = rules.declared(
        Deployment(model_digest=DIGEST, scaling={"policy": kind, "max_replicas": 4, **fields})
    )
    return made.scaling


def add(mesh: ListedMesh, name: str, **fields: Any) -> Deployment:
    """A deployment as the autoscaler has it; returned so that its status can be changed."""
    deployment = rules.declared(Deployment(model_digest=DIGEST, **fields))
    deployment.name, deployment.generation = f"deployments/{name}", 1
    mesh.deployments[deployment.name] = deployment
    return deployment


def decision(number: int, deployment: str = "a", **fields: Any) -> ScaleDecision:
    made = ScaleDecision(
        name=f"deployments/{deployment}/decisions/{number}",
        target_before=number,
        target_after=number + 1,
        rule=ScaleDecision.RULE_POLICY,
        reason=f"reason {number}",
        applied=True,
        policy=policy(),
        max_ongoing_requests=8,
    )
    made.decide_time.FromJsonString(f"2026-03-01T10:00:{number:02}Z")
    made.MergeFrom(ScaleDecision(**fields))
    return made


async def test_decisions_are_listed_with_the_newest_last(mesh: ListedMesh) -> None:
    mesh.decisions = [decision(n, "a" if n % 2 else "b") for n in range(7)]
    lines = (await forebay(mesh, "decisions", "-n", "3")).ok().out.splitlines()
    assert lines[0].split() == ["TIME", "DEPLOYMENT", "REPLICAS", "RULE", "REASON", "DECISION"]
    assert [line.split()[-1] for line in lines[1:]] == ["b/4", "a/5", "b/6"]
    assert lines[1].split() == [
        "2026-03-01",
        "10:00:04Z",
        "b",
        "4→5",
        "policy",
        "reason",
        "4",
        "b/4",
    ]
    of_a = (await forebay(mesh, "decisions", "a", "-o", "json")).json()
    assert [found["name"].rpartition("/")[2] for found in of_a] == ["1", "3", "5"]
    assert of_a[0]["rule"] == "policy"
    assert of_a[0]["signals"] is None


async def test_what_was_not_acted_on_stands_in_brackets(mesh: ListedMesh) -> None:
    held = decision(3)
    held.applied, held.target_after = False, 3
    advised = decision(4)
    advised.applied = False
    mesh.decisions = [held, advised]
    out = (await forebay(mesh, "decisions")).ok().out
    assert "(3)" in out
    assert "(4→5)" in out


async def test_nothing_decided_yet_is_a_sentence(mesh: ListedMesh) -> None:
    ran = (await forebay(mesh, "decisions")).ok()
    assert (ran.out, "no decision has been made yet" in ran.err) == ("", True)
    assert (await forebay(mesh, "decisions", "-o", "json")).json() == []


async def test_a_deployment_without_decisions_has_none_and_a_deleted_one_keeps_its(
    mesh: ListedMesh,
) -> None:
    add(mesh, "new")
    mesh.decisions = [decision(1, "deleted")]
    assert (await forebay(mesh, "decisions", "new", "-o", "json")).json() == []
    assert "deleted/1" in (await forebay(mesh, "decisions", "deleted")).ok().out
    assert (await forebay(mesh, "decisions", "deleted", "-n", "0", "-o", "json")).json() == []


@asynccontextmanager
async def following(mesh: ListedMesh, *arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "forebay.cli.main", "decisions", "--follow", *arguments),
        *("--autoscaler", mesh.address),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        # Reads to the end, which closes the pipes.
        await process.communicate()


async def read_line(process: asyncio.subprocess.Process) -> str:
    assert process.stdout is not None
    async with asyncio.timeout(60):
        return (await process.stdout.readline()).decode()


async def test_following_shows_the_last_ones_and_then_each_as_it_is_made(mesh: ListedMesh) -> None:
    mesh.decisions = [decision(1), decision(2)]
    async with following(mesh, "-n", "1") as process:
        assert (await read_line(process)).startswith("TIME")
        assert "[a/2]" in await read_line(process)
        mesh.decide(decision(3))
        assert "2026-03-01 10:00:03Z  a                     3→4" in (
            line := await read_line(process)
        )
        assert line.endswith("reason 3  [a/3]\n")
        process.send_signal(signal.SIGINT)
        _, err = await process.communicate()
        assert (process.returncode, err.decode()) == (130, "interrupted\n")
    await eventually(lambda: not mesh.watchers)


async def test_following_as_json_is_one_line_each_and_none_twice(mesh: ListedMesh) -> None:
    mesh.decisions = [decision(1)]
    async with following(mesh, "a", "-o", "json") as process:
        assert json.loads(await read_line(process))["target_after"] == 2
        (watcher,) = mesh.watchers
        # It was made between watching and listing, so that both have it.
        watcher.put_nowait(mesh.decisions[0])
        mesh.decide(decision(2, "b"))
        mesh.decide(decision(3))
        assert json.loads(await read_line(process))["name"] == "deployments/a/decisions/3"
        watcher.put_nowait(None)
        _, err = await process.communicate()
    assert process.returncode == 0
    assert "the autoscaler has ended the stream" in err.decode()


def explained() -> ScaleDecision:
    return decision(
        7,
        signals=ScaleSignals(queued_count=9, mean_load=5.25, ready_replica_count=1),
        steps=[
            ScaleStep(step="policy", replica_count=5, sentence="mean of 9 / 2 per replica = 5"),
            ScaleStep(step="bounds", replica_count=4, sentence="max_replicas 4 bound it"),
        ],
        rule=ScaleDecision.RULE_MAX_REPLICAS,
        flip="a mean load of at most 6 would have given 3",
    )


@pytest.mark.parametrize("name", ["deployments/a/decisions/7", "a/7", "a"])
async def test_explain_shows_inputs_steps_and_what_would_have_changed_it(
    mesh: ListedMesh, name: str
) -> None:
    mesh.decisions = [decision(1), explained(), decision(8, "b")]
    out = (await forebay(mesh, "explain", name)).ok().out
    flat = " ".join(out.split())
    assert "queued 9 ongoing not known" in flat
    assert "mean load 5.25 mean load with redelivered not known" in flat
    assert "replicas ready 1 replicas starting 0" in flat
    assert "policy 5 mean of 9 / 2 per replica = 5 bounds 4 max_replicas 4 bound it" in flat
    assert "rule max_replicas" in flat
    assert "applied yes" in flat
    assert "otherwise if a mean load of at most 6 would have given 3" in flat
    assert "0 to 4 replicas; ongoing_requests (2 per replica, mean over 10 s)" in flat


async def test_explain_says_what_was_advice_and_what_failed(mesh: ListedMesh) -> None:
    advised = decision(1, signals=ScaleSignals(custom_error="it raised ValueError"))
    advised.applied = False
    fixed = decision(2, "b", fixed_replicas=2, pinned_replicas=3)
    fixed.ClearField("policy")
    mesh.decisions = [advised, fixed]
    out = " ".join((await forebay(mesh, "explain", "a")).ok().out.split())
    assert "applied no: the policy is advisory" in out
    assert "custom policy it raised ValueError" in out
    out = " ".join((await forebay(mesh, "explain", "b/2")).ok().out.split())
    assert "pinned 3 replicas policy none: fixed at 2 replicas" in out
    shown = (await forebay(mesh, "explain", "b", "-o", "json")).json()
    assert (shown["name"], shown["pinned_replicas"]) == ("deployments/b/decisions/2", 3)


async def test_scale_pins_and_releases(mesh: ListedMesh) -> None:
    add(mesh, "a", scaling=policy())
    ran = (await forebay(mesh, "scale", "a", "3")).ok()
    assert "a is pinned: the target is 3 replicas until `forebay scale a --release`" in ran.err
    assert mesh.deployments["deployments/a"].pinned_replicas == 3
    assert "pinned (0 to 4, ongoing_requests)" in (await forebay(mesh, "list")).ok().out
    ran = (await forebay(mesh, "scale", "a", "0", "-o", "json")).ok()
    assert ran.json()["pinned_replicas"] == 0
    released = (await forebay(mesh, "scale", "a", "--release")).ok()
    assert "a is released: its policy decides again" in released.err
    assert not mesh.deployments["deployments/a"].HasField("pinned_replicas")
    assert mesh.updates == [["pinned_replicas"]] * 3


@pytest.mark.parametrize("flag", ["--advisory", "--dry-run"])
async def test_scale_tries_a_policy_out(mesh: ListedMesh, flag: str) -> None:
    add(mesh, "a", scaling=policy())
    ran = (await forebay(mesh, "scale", "a", flag)).ok()
    assert "decisions are made and kept but not acted on" in ran.err
    assert mesh.deployments["deployments/a"].scaling.advisory
    assert "a is live" in (await forebay(mesh, "scale", "a", "--live")).ok().err
    assert not mesh.deployments["deployments/a"].scaling.advisory
    assert mesh.updates == [["scaling.advisory"]] * 2


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("scale", "fixed"), 2, "say what to change: a number of replicas, --release"),
        (("scale", "fixed", "3", "--release"), 2, "not both"),
        (("scale", "fixed", "1001"), 2, "less than or equal"),
        (("scale", "fixed", "-1"), 2, "Invalid value for N: -1 is not 0 to 1000"),
        (("decisions", "nowhere"), 3, "there is no deployment nowhere"),
        (("decisions", "nowhere", "-n", "0"), 3, "there is no deployment nowhere"),
        (("scale", "fixed", "--advisory"), 2, "has a fixed number of replicas"),
        (("scale", "Fixed", "3"), 2, "cannot name a deployment"),
        (("scale", "nowhere", "3"), 3, "nowhere"),
        (("explain", "fixed"), 3, "no decision on fixed is kept"),
        (("explain", "fixed/9"), 3, "there is no decision deployments/fixed/decisions/9"),
        (("explain", "a/b/c"), 2, "a/b/c cannot name a decision"),
        (("explain", "a/"), 2, "cannot name a decision"),
        (("explain", "deployments/a"), 2, "cannot name a decision"),
        (("explain", "A/1"), 2, "cannot name a deployment"),
        (("decisions", "A"), 2, "cannot name a deployment"),
        (("decisions", "-n", "1001"), 2, "less than or equal"),
    ],
)
async def test_a_failure_is_a_sentence_and_an_exit_code(
    mesh: ListedMesh, arguments: tuple[str, ...], code: int, said: str
) -> None:
    add(mesh, "fixed", replicas=2)
    failed = await forebay(mesh, *arguments)
    assert (failed.code, failed.out) == (code, "")
    assert said in " ".join(failed.err.split())
    assert "Traceback" not in failed.err


@pytest.mark.parametrize(
    "arguments",
    [("decisions",), ("decisions", "-f"), ("explain", "a"), ("scale", "a", "1"), ("demand",)],
)
async def test_a_mesh_that_is_away_is_named(arguments: tuple[str, ...]) -> None:
    failed = await asyncio.to_thread(run_forebay, *arguments, "--autoscaler", "127.0.0.1:1")
    assert failed.code == 4
    assert "nothing answers at 127.0.0.1:1" in failed.err


async def test_demand_names_what_is_missing_and_what_may_go(mesh: ListedMesh) -> None:
    assert "nothing has been looked at yet" in (await forebay(mesh, "demand")).ok().err
    mesh.demand.sample_time.GetCurrentTime()
    ran = (await forebay(mesh, "demand")).ok()
    assert "every replica has a place" in ran.err
    needs = ReplicaResources(gpus=0.5, accelerator_type="L4", cpus=2, custom={"tpu": 1})
    shape = NodeDemand.Shape(
        resources=needs, replica_count=3, deployments=[f"deployments/d{n}" for n in range(7)]
    )
    mesh.demand = NodeDemand(unplaced=[shape], releasable_nodes=["nodes/node-2"])
    mesh.demand.sample_time.GetCurrentTime()
    out = " ".join((await forebay(mesh, "demand")).ok().out.split())
    assert "3 0.5 GPU (L4), 2 CPUs, 1 tpu d0, d1, d2, d3, d4 and 2 more" in out
    assert "node-2" in out
    shown = (await forebay(mesh, "demand", "-o", "json")).json()
    assert shown["releasable_nodes"] == ["nodes/node-2"]
    assert shown["unplaced"][0]["resources"]["custom"] == {"tpu": 1}


async def test_nodes_show_what_they_have_and_what_is_simulated(mesh: ListedMesh) -> None:
    gpu, second_gpu = (
        Gpu(uuid=uuid, product_name="NVIDIA L4", memory_total_bytes=24 * 2**30, simulated=True)
        for uuid in ("1", "2")
    )
    mesh.nodes = [
        Node(
            name="nodes/n",
            state=Node.STATE_ACTIVE,
            slot_count=2,
            gpus=[gpu, second_gpu],
            replicas=[
                ReplicaStatus(gpu_uuids=["1"], gpus=0.25),
                ReplicaStatus(gpu_uuids=["1"], gpus=0.25),
                ReplicaStatus(gpu_uuids=["2"], gpus=1),
                ReplicaStatus(),
            ],
            cpus=3.5,
            memory_bytes=8 * 2**30,
            custom={"tpu": 2},
        ),
        Node(name="nodes/old", state=Node.STATE_ACTIVE),
    ]
    out = (await forebay(mesh, "nodes", metrics=True)).ok().out
    lines = [" ".join(line.split()) for line in out.splitlines()[1:]]
    assert lines[0] == "n active unknown 1/2 1.5/2 3.5 8 GiB tpu 2 4 never"
    assert lines[1] == "old active unknown 0/0 none unknown unknown 0 never"
    assert lines[-2:] == [f"{n} n NVIDIA L4 (simulated) 0 of 24 GiB ok" for n in (1, 2)]


async def test_list_and_status_say_what_decides_and_why(mesh: ListedMesh) -> None:
    status = add(mesh, "a", scaling=policy(advisory=True)).status
    status.target_replica_count, status.ready_replica_count = 3, 1
    status.starting_replica_count, status.unplaced_replica_count = 1, 1
    status.decision_reason, status.message = "9 requests wait", "1 replica has no place"
    status.startup_time.FromMilliseconds(2500)
    add(mesh, "fixed", replicas=2)
    add(mesh, "idle", scaling=policy())
    lines = [" ".join(line.split()) for line in (await forebay(mesh, "list")).ok().out.splitlines()]
    assert lines[1].startswith("a 1/3 1 1 0 to 4, ongoing_requests, advisory 1 ")
    assert lines[2].startswith("fixed 0/2 0 0 fixed 1")
    assert lines[3].startswith("idle 0/0 0 0 0 to 4, ongoing_requests 1")
    assert lines[3].endswith("at zero")
    out = " ".join((await forebay(mesh, "status", "a", metrics=True)).ok().out.split())
    assert "replicas ready 1 of 3 starting 1 unplaced 1" in out
    assert "up after 3 s, down after 120 s, to zero after 300 s; advisory" in out
    assert "pinned no last decision 9 requests wait start-up time 2.5 s needs a CPU slot" in out
    out = (await forebay(mesh, "status", metrics=True)).ok().out
    assert "UNPLACED" in out


async def test_deploying_to_zero_does_not_wait(mesh: ListedMesh, tmp_path: Path) -> None:
    file = write_echo(tmp_path, name="zero", autoscaling_config={"max_containers": 4})
    ran = (await forebay(mesh, "deploy", file, metrics=True)).ok()
    assert "zero is at zero replicas: the first request will start it" in ran.err
    assert "autoscaling_config.max_containers is called max_replicas here" in ran.err
    assert "zero unchanged" in (await forebay(mesh, "deploy", file, metrics=True)).ok().err
    assert (await forebay(mesh, "scale", "zero", "0")).code == 0
    write_echo(tmp_path, name="zero", scaling={"max_replicas": 5})
    ran = (await forebay(mesh, "deploy", file, metrics=True)).ok()
    assert "zero updated (scaling)" in ran.err
    assert mesh.deployments["deployments/zero"].HasField("pinned_replicas")


async def test_deploying_waits_for_what_the_policy_wants(mesh: ListedMesh, tmp_path: Path) -> None:
    file = write_echo(tmp_path, name="some", scaling={"initial_replicas": 2, "max_replicas": 4})
    deploying = asyncio.create_task(forebay(mesh, "deploy", file, metrics=True))
    await eventually(lambda: mesh.deployments["deployments/some"], timeout_s=60)
    status = mesh.deployments["deployments/some"].status
    status.target_replica_count, status.updated_replica_count = 2, 1
    late = await forebay(mesh, "deploy", file, "--timeout-s", "0.1", metrics=True)
    assert (late.code, "1 of 2 replicas ready" in late.err) == (1, True)
    assert not deploying.done()
    status.updated_replica_count = 2
    ran = (await deploying).ok()
    assert "some is ready: 2 replicas, 0 to 4 with the load" in ran.err
