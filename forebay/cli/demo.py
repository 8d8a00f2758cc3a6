"""`forebay demo`: a mesh, a real model and real files, from zero replicas and back to zero."""

import asyncio
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from forebay import addresses, deployment_file
from forebay.aio import AsyncClient
from forebay.cli import infer
from forebay.cli.decisions import newest
from forebay.cli.deploy import deploy
from forebay.cli.failure import CliError
from forebay.cli.link import Link, Where, link_to
from forebay.cli.output import Output, Progress, print_json, print_table, progress, say, to_plain
from forebay.cli.scaling_words import change
from forebay.cli.show import delete
from forebay.cli.up import provide_triton, start
from forebay.deployment_file import DeploymentFile
from forebay.local import triton_setup
from forebay.local.mesh import LocalMesh
from forebay.local.programs import MeshOptions
from forebay.v1.deployment_pb2 import Deployment
from forebay.v1.scaling_pb2 import ScaleDecision

# The first request waits until the model's Python environment is built.
FIRST_TIMEOUT_S = 300.0
INFER_TIMEOUT_S = 60.0
ZERO_TIMEOUT_S = 180.0
"""A replica that is slow to start has its chance for at least 60 s, and counts until then."""

TASKS_PER_REPLICA = 4
IDLE_S = 3.0
INPUT, SHAPE = "CONTENT", (1, 1)
"""The one input of the model in examples/file-type."""

MOST_FILES = 12
MOST_DECISIONS = 100

# A checkout, or what the container image has instead.
_CHECKOUT = Path(__file__).resolve().parents[2]
_SHARED = Path(sys.prefix) / "share" / "forebay"
_ROOT = _CHECKOUT if (_CHECKOUT / "examples").is_dir() else _SHARED
_EXAMPLE = _ROOT / "examples" / "file-type"
_PATTERNS = (
    "README.md",
    "pyproject.toml",
    "Makefile",
    "constraints.txt",
    "forebay/client.py",
    "protos/forebay/v1/router.proto",
    "examples/file-type/model/config.pbtxt",
    "docs/**/*.svg",
    "docs/**/*.png",
    ".ci/run",
)


class Stopwatch:
    """How long each step took, in order."""

    def __init__(self) -> None:
        self._clock = asyncio.get_running_loop()
        self._since_s = self._clock.time()
        self.steps: list[tuple[str, float]] = []

    def done(self, step: str) -> None:
        """Ends a step that began where the one before ended."""
        now_s = self._clock.time()
        self.steps.append((step, now_s - self._since_s))
        self._since_s = now_s


async def run(use_running: bool, where: Where, output: Output) -> None:
    """Runs the demonstration and prints what came back and how long it took.

    Raises:
        CliError: if any part of it fails.
    """
    if not _EXAMPLE.is_dir():
        raise CliError(
            "the demo's model, examples/file-type, is not here: run it from a checkout of Forebay, "
            "or in the container image"
        )
    watch = Stopwatch()
    with progress() as tell:
        place = _running(where) if use_running else _temporary(tell)
        async with place as mesh:
            watch.done("found the mesh" if use_running else "started the mesh")
            results, decisions = await _try_out(mesh, tell, watch)
            if not use_running:
                tell("stopping the mesh")
        watch.done("deleted the deployment" if use_running else "stopped the mesh")
    _print(results, decisions, watch, output)
    failed = [done for done in results if done.error]
    if failed:
        raise CliError(f"{len(failed)} of {len(results)} requests failed")


@asynccontextmanager
async def _running(where: Where) -> AsyncIterator[Where]:
    yield where
    await delete("file-type", where, Output.TABLE)


@asynccontextmanager
async def _temporary(tell: Progress) -> AsyncIterator[Where]:
    """A mesh of its own, in a temporary directory and on ports the kernel chooses."""
    home = triton_setup.default_home()
    if not triton_setup.is_current(home):
        await asyncio.to_thread(provide_triton, home, None, tell)
    tell("starting a mesh")
    # A short path: it becomes part of what Triton passes to its Python processes.
    with tempfile.TemporaryDirectory(prefix="forebay-demo-", ignore_cleanup_errors=True) as scratch:
        any_port = "127.0.0.1:0"
        mesh = LocalMesh(
            MeshOptions(
                state_dir=Path(scratch),
                triton_home=home,
                router=any_port,
                autoscaler=any_port,
                metrics=any_port,
                metrics_http=any_port,
            ),
            _only_trouble(tell),
        )
        await start(mesh)
        try:
            at = mesh.addresses
            yield Where(at.router, at.autoscaler, at.metrics, Path(scratch))
        finally:
            await mesh.stop()


def _only_trouble(tell: Progress) -> Callable[[str], None]:
    def say_it(message: str) -> None:
        if message.startswith("stopping"):
            tell(message)
        else:
            say(message)

    return say_it


async def _try_out(
    where: Where, tell: Progress, watch: Stopwatch
) -> tuple[list[infer.Done], list[ScaleDecision]]:
    file = _made_quick(deployment_file.load(_EXAMPLE))
    name = file.spec.name
    jobs = [infer.file_job(INPUT, SHAPE, path) for path in _files()]
    async with link_to(addresses.AUTOSCALER, where) as autoscaler:
        deployment, _ = await deploy(file, autoscaler, tell)
        watch.done("uploaded and declared the model, at zero replicas")
        tell("the first requests start replicas, which build the model's Python environment")
        async with AsyncClient(where.address(addresses.ROUTER)) as client:
            results = await infer.infer_all(client, name, jobs, FIRST_TIMEOUT_S)
            watch.done(f"{len(jobs)} files, the first of them from zero replicas")
            again = await infer.infer_all(client, name, jobs, INFER_TIMEOUT_S)
            watch.done(f"{len(jobs)} files again, with replicas ready")
        tell(f"waiting until its replicas have been idle for {IDLE_S:g} s and go")
        decisions = await _back_to_zero(deployment, autoscaler)
        watch.done("back to zero replicas")
    return [*results, *(done for done in again if done.error)], decisions


def _made_quick(file: DeploymentFile) -> DeploymentFile:
    """The example with a scaling that shows within seconds what takes minutes in earnest."""
    assert file.spec.scaling is not None, "the example scales"
    scaling = file.spec.scaling.model_copy(
        update={
            "max_tasks_per_replica": TASKS_PER_REPLICA,
            "upscale_delay_s": 0.0,
            "downscale_delay_s": IDLE_S,
            "downscale_to_zero_delay_s": IDLE_S,
        }
    )
    return replace(file, spec=file.spec.model_copy(update={"scaling": scaling}))


async def _back_to_zero(deployment: Deployment, autoscaler: Link) -> list[ScaleDecision]:
    """All decisions, oldest first, once the last one is to have no replica."""
    name, since_ns = deployment.name, deployment.create_time.ToNanoseconds()
    clock = asyncio.get_running_loop()
    until_s = clock.time() + ZERO_TIMEOUT_S
    while True:
        kept = await newest(name, MOST_DECISIONS, autoscaler)
        # A mesh that ran before keeps those of an earlier demonstration.
        found = [d for d in kept if d.decide_time.ToNanoseconds() >= since_ns]
        if found and not found[0].target_after and any(d.target_after for d in found):
            return list(reversed(found))
        if clock.time() > until_s:
            why = f": {found[0].reason}" if found else ""
            raise CliError(f"{name} is not back at zero replicas after {ZERO_TIMEOUT_S:g} s{why}")
        await asyncio.sleep(0.2)


def _files() -> list[Path]:
    found = [path for pattern in _PATTERNS for path in sorted(_ROOT.glob(pattern))[:2]]
    # This Python itself, as something that is not text.
    return [*found[: MOST_FILES - 1], Path(sys.executable).resolve()]


def _print(
    results: Sequence[infer.Done],
    decisions: Sequence[ScaleDecision],
    watch: Stopwatch,
    output: Output,
) -> None:
    if output is Output.JSON:
        steps = [{"step": step, "duration_s": round(took, 3)} for step, took in watch.steps]
        print_json(
            {
                "results": [infer.plain(done) for done in results],
                "decisions": [to_plain(decision) for decision in decisions],
                "steps": steps,
            }
        )
        return
    infer.show([_short(done) for done in results], infer.InferOptions())
    began_ns = decisions[0].decide_time.ToNanoseconds()
    rows = [
        (f"{(d.decide_time.ToNanoseconds() - began_ns) / 1e9:.1f} s", change(d), d.reason)
        for d in decisions
        if d.target_after != d.target_before or d is decisions[0]
    ]
    print_table(("\nAFTER", "\nREPLICAS", "\nWHY"), rows)
    print_table(("\nSTEP", "\nSECONDS"), [(step, f"{took:.2f}") for step, took in watch.steps])


def _short(done: infer.Done) -> infer.Done:
    path = Path(done.label)
    label = str(path.relative_to(_ROOT)) if path.is_relative_to(_ROOT) else done.label
    return infer.Done(label, done.result, done.error, done.duration_s)
