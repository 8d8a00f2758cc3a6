"""Environments built by a real pip from the base environment of a real Triton home."""

import asyncio
import fcntl
import os
from pathlib import Path

import psutil
import pytest

from forebay.local import triton_setup
from services.node_agent.models import python_environment
from services.node_agent.models.python_environment import PythonEnvironments, RequirementsError
from tests.support.eventually import eventually

BUILDING = "building the model's Python environment from its requirements.txt"


@pytest.fixture(scope="module")
def base() -> Path:
    home = triton_setup.default_home()
    triton_setup.set_up(home)
    return home / "base-env"


def quiet(_: str) -> None:
    """Nobody to tell."""


async def test_an_environment_is_built_once_and_has_a_numpy_that_triton_takes(
    tmp_path: Path, base: Path
) -> None:
    said: list[str] = []
    requirements = b"six\n"
    # Two agents, one of which wants it twice, all at the same time.
    one, other = (PythonEnvironments(tmp_path / "envs", base) for _ in range(2))
    built = await asyncio.gather(*(e.build(requirements, said.append) for e in (one, one, other)))
    assert len(set(built)) == 1
    assert said.count(BUILDING) == 1
    packages = next(built[0].glob("lib/python3*/site-packages"))
    assert (packages / "six.py").is_file()
    assert [path.name for path in packages.glob("numpy-1.*.dist-info")]

    changed_ns = (built[0] / "requirements.txt").stat().st_mtime_ns
    assert await one.build(requirements, said.append) == built[0]
    assert (built[0] / "requirements.txt").stat().st_mtime_ns == changed_ns
    assert said.count(BUILDING) == 1


async def test_a_requirement_that_does_not_exist_is_told_in_pips_words(
    tmp_path: Path, base: Path
) -> None:
    model = tmp_path / "model"
    model.mkdir()
    (model / "requirements.txt").write_text("./nowhere\n")
    environments = PythonEnvironments(tmp_path / "envs", base)
    with pytest.raises(RequirementsError, match=r"ERROR: .*nowhere"):
        await environments.of(model, quiet)
    assert not [path for path in (tmp_path / "envs").iterdir() if path.is_dir()]


async def test_a_model_without_requirements_runs_in_the_base(tmp_path: Path, base: Path) -> None:
    environments = PythonEnvironments(tmp_path / "envs", base)
    assert await environments.of(tmp_path, quiet) == base


async def test_a_cancelled_build_leaves_no_process_and_frees_the_lock(
    tmp_path: Path, base: Path
) -> None:
    package = tmp_path / "slow"
    package.mkdir()
    started = tmp_path / "started"
    # pip runs this in a process of its own, which would go on for an hour.
    (package / "backend.py").write_text(
        f"import pathlib, time\npathlib.Path({str(started)!r}).touch()\ntime.sleep(3600)\n"
    )
    (package / "pyproject.toml").write_text(
        '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    )
    environments = PythonEnvironments(tmp_path / "envs", base)
    building = asyncio.create_task(environments.build(f"{package}\n".encode(), quiet))
    await eventually(started.exists, 120)
    assert _processes_about(tmp_path)
    building.cancel()
    await asyncio.gather(building, return_exceptions=True)
    assert building.cancelled()
    await eventually(lambda: not _processes_about(tmp_path), 60)
    with pytest.raises(RequirementsError):
        await environments.build(b"./nowhere\n", quiet)


async def test_waiting_for_another_agent_holds_no_thread(tmp_path: Path, base: Path) -> None:
    environments = PythonEnvironments(tmp_path / "envs", base)
    with pytest.raises(RequirementsError):
        await environments.build(b"./nowhere\n", quiet)
    lock = next((tmp_path / "envs").glob(".*.lock"))
    said: list[str] = []
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        waiting = [PythonEnvironments(tmp_path / "envs", base) for _ in range(100)]
        many = [asyncio.create_task(e.build(b"./nowhere\n", said.append)) for e in waiting]
        await eventually(lambda: len(said) == len(many), 60)
        async with asyncio.timeout(30):
            await asyncio.to_thread(os.getpid)
        for task in many:
            task.cancel()
        await asyncio.gather(*many, return_exceptions=True)
    assert all("another agent" in what for what in said)


async def test_a_directory_that_cannot_be_made_is_told_in_a_sentence(
    tmp_path: Path, base: Path
) -> None:
    (tmp_path / "file").touch()
    environments = PythonEnvironments(tmp_path / "file" / "envs", base)
    with pytest.raises(RequirementsError, match=r"cannot be built in .*: Not a directory"):
        await environments.build(b"", quiet)


async def test_environments_used_last_or_in_use_are_kept(
    tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def install(command: list[str], _: int) -> None:
        if "venv" in command:
            Path(command[-1]).mkdir(parents=True)

    monkeypatch.setattr(python_environment, "_run", install)
    environments = PythonEnvironments(tmp_path / "envs", base)
    first = await environments.build(b"0", quiet)
    running = await environments.build(b"1", quiet)
    again = await environments.build(b"2", quiet)
    process = await asyncio.create_subprocess_exec(
        "sleep", "3600", env={"VIRTUAL_ENV": str(running), "PATH": os.environ["PATH"]}
    )
    try:
        for number in range(3, 3 + python_environment.KEPT - 1):
            await environments.build(str(number).encode(), quiet)
            await environments.build(b"2", quiet)
        await environments.build(b"a last one", quiet)
    finally:
        process.kill()
        await process.wait()
    assert not first.exists()
    assert running.exists()
    assert again.exists()
    kept = [path for path in (tmp_path / "envs").iterdir() if path.is_dir()]
    assert len(kept) == python_environment.KEPT + 1


def _processes_about(directory: Path) -> list[list[str]]:
    found = []
    for process in psutil.process_iter():
        try:
            line = process.cmdline()
            if any(str(directory) in word for word in (*line, process.cwd())):
                found.append(line)
        except psutil.Error:
            continue
    return found
