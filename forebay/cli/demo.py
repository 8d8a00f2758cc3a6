"""`forebay demo`: a mesh, a real model and real files, and nothing left behind."""

import asyncio
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from forebay import addresses, deployment_file
from forebay.aio import AsyncClient
from forebay.cli import infer
from forebay.cli.deploy import deploy
from forebay.cli.failure import CliError
from forebay.cli.link import Where, link_to
from forebay.cli.output import Output, Progress, print_json, print_table, progress, say
from forebay.cli.rollout import until_ready
from forebay.cli.show import delete
from forebay.cli.up import provide_triton, start
from forebay.local import triton_setup
from forebay.local.mesh import LocalMesh
from forebay.local.programs import MeshOptions

READY_TIMEOUT_S = 300.0
INFER_TIMEOUT_S = 60.0
MOST_FILES = 12

_ROOT = Path(__file__).resolve().parents[2]
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
            "the demo's model, examples/file-type, is not here: run it from a checkout of Forebay"
        )
    watch = Stopwatch()
    with progress() as tell:
        place = _running(where) if use_running else _temporary(tell)
        async with place as mesh:
            watch.done("found the mesh" if use_running else "started the mesh")
            results = await _try_out(mesh, tell, watch)
            if not use_running:
                tell("stopping the mesh")
        watch.done("deleted the deployment" if use_running else "stopped the mesh")
    _print(results, watch, output)
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


async def _try_out(where: Where, tell: Progress, watch: Stopwatch) -> list[infer.Done]:
    file = deployment_file.load(_EXAMPLE)
    name = file.spec.name
    async with (
        link_to(addresses.AUTOSCALER, where) as autoscaler,
        link_to(addresses.METRICS, where) as metrics,
    ):
        deployment, _ = await deploy(file, autoscaler, tell)
        watch.done("uploaded and declared the model")
        await until_ready(deployment, autoscaler, metrics, READY_TIMEOUT_S, tell)
        watch.done("first replica ready (with its Python environment)")
    tell("running the model")
    found = infer.file_input(await infer.model_metadata(name, where, INFER_TIMEOUT_S))
    if found is None:
        raise CliError(f"{name} does not take files")
    jobs = [infer.file_job(*found, path) for path in _files()]
    async with AsyncClient(where.address(addresses.ROUTER)) as client:
        first = await infer.infer_all(client, name, jobs[:1], INFER_TIMEOUT_S)
        watch.done("first inference")
        rest = await infer.infer_all(client, name, jobs[1:], INFER_TIMEOUT_S)
        watch.done(f"{len(rest)} more files, {infer.CONCURRENT_REQUESTS} at a time")
    return [*first, *rest]


def _files() -> list[Path]:
    found = [path for pattern in _PATTERNS for path in sorted(_ROOT.glob(pattern))[:2]]
    # This Python itself, as something that is not text.
    return [*found[: MOST_FILES - 1], Path(sys.executable).resolve()]


def _print(results: Sequence[infer.Done], watch: Stopwatch, output: Output) -> None:
    if output is Output.JSON:
        steps = [{"step": step, "duration_s": round(took, 3)} for step, took in watch.steps]
        print_json({"results": [infer.plain(done) for done in results], "steps": steps})
        return
    infer.show([_short(done) for done in results], infer.InferOptions())
    print_table(("\nSTEP", "\nSECONDS"), [(step, f"{took:.2f}") for step, took in watch.steps])


def _short(done: infer.Done) -> infer.Done:
    path = Path(done.label)
    label = str(path.relative_to(_ROOT)) if path.is_relative_to(_ROOT) else done.label
    return infer.Done(label, done.result, done.error, done.duration_s)
