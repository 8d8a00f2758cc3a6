"""Python environments, built in a container by pip from a package on this machine."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import grpc.aio
import pytest

from forebay.v1 import launcher_pb2 as pb
from services.launcher import environments
from services.launcher.environments import KEPT
from tests.support.docker_engine import EngineApi, need_engine
from tests.support.eventually import eventually
from tests.support.launcher import LauncherClient, launcher, new_mesh

IMAGES = ("forebay-test/python:bookworm", "python:3.11-slim-bookworm")
"""What `make test-images` makes where nothing can be pulled, and what it stands for."""


@pytest.fixture(scope="module")
def engine() -> EngineApi:
    found = need_engine()
    if not any(map(found.has_image, IMAGES)):
        pytest.skip(f"the container engine has none of {', '.join(IMAGES)}: `make test-images`")
    return found


@pytest.fixture(scope="module")
def image(engine: EngineApi) -> str:
    return next(filter(engine.has_image, IMAGES))


@pytest.fixture
async def client(engine: EngineApi, image: str, tmp_path: Path) -> AsyncIterator[LauncherClient]:
    variables = {"PIP_NO_INDEX": "1"}
    async with launcher(
        engine, tmp_path, image, new_mesh(), environment_variables=variables,
        environment_timeout_s=120.0, default_memory_bytes=512 * 1024**2,
    ) as connected:  # fmt: skip
        yield connected


async def prepare(client: LauncherClient, requirements: str) -> list[pb.PrepareEnvironmentResponse]:
    request = pb.PrepareEnvironmentRequest(
        image_id=await client.image_id(), requirements=requirements.encode()
    )
    return [response async for response in client.stub.PrepareEnvironment(request)]


async def error_of(client: LauncherClient, requirements: str) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await prepare(client, requirements)
    return caught.value


def left(client: LauncherClient) -> list[str]:
    return sorted(path.name for path in (client.state_dir / "environments").iterdir())


async def test_an_environment_is_built_once_for_all_who_ask(client: LauncherClient) -> None:
    both = await asyncio.gather(prepare(client, "# none\n"), prepare(client, "# none\n"))
    # Either may be the first to come.
    (first, *_, last), (waiting, *_, other) = sorted(both, key=lambda said: said[0].progress)
    assert "building" in first.progress
    assert "waiting" in waiting.progress
    assert last.environment_id == other.environment_id
    assert left(client) == [last.environment_id]
    again = await prepare(client, "# none\n")
    assert [response.environment_id for response in again] == [last.environment_id]


async def test_no_more_than_a_few_are_built_at_once(
    engine: EngineApi, image: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environments, "BUILDS_AT_ONCE", 1)
    variables = {"PIP_NO_INDEX": "1"}
    async with launcher(
        engine, tmp_path, image, new_mesh(), environment_variables=variables
    ) as client:
        both = await asyncio.gather(prepare(client, "# one\n"), prepare(client, "# other\n"))
        assert sum("of other models" in said[0].progress for said in both) == 1
        assert left(client) == sorted(said[-1].environment_id for said in both)


async def test_what_pip_cannot_install_is_said_in_its_words_and_nothing_is_left(
    client: LauncherClient, engine: EngineApi
) -> None:
    error = await error_of(client, "no-such-package==1\n")
    assert error.code() == grpc.StatusCode.FAILED_PRECONDITION
    assert "requirements.txt cannot be installed" in str(error.details())
    assert "no-such-package" in str(error.details())
    assert left(client) == []
    assert engine.containers("io.forebay.kind=environment") == []


async def test_a_caller_who_goes_away_leaves_no_container(
    client: LauncherClient, engine: EngineApi
) -> None:
    request = pb.PrepareEnvironmentRequest(
        image_id=await client.image_id(), requirements=b"# other\n"
    )
    call = client.stub.PrepareEnvironment(request)
    await call.read()
    await eventually(lambda: engine.containers("io.forebay.kind=environment"))
    call.cancel()
    await eventually(lambda: engine.containers("io.forebay.kind=environment") == [])
    await eventually(lambda: not [name for name in left(client) if name.endswith(".tmp")])
    assert (await prepare(client, "# other\n"))[-1].environment_id


async def test_unused_environments_beyond_the_last_few_are_removed(
    client: LauncherClient,
) -> None:
    for number in range(KEPT + 3):
        (client.state_dir / "environments" / f"{number:032x}").mkdir(parents=True, exist_ok=True)
    newest = (await prepare(client, "# new\n"))[-1].environment_id
    names = await eventually(lambda: (names := left(client)) and len(names) == KEPT and names)
    assert newest in names
