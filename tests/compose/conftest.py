"""The images and the mesh of the compose tests, or why there is none."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.compose import engine, images
from tests.compose.engine import docker
from tests.compose.images import Images


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.compose)


@pytest.fixture(scope="session")
def built() -> Images:
    """The images; without a daemon there are none, and the tests are skipped."""
    reason = engine.why_not()
    if reason:
        pytest.skip(reason)
    return images.build()


@pytest.fixture(scope="module")
def directory(built: Images) -> Iterator[Path]:
    """A folder whose path is the same to the daemon; emptied by a container, which may."""
    made = Path(tempfile.mkdtemp(prefix="forebay-compose-", dir="/var/tmp"))
    made.chmod(0o755)
    yield made
    # Replicas' containers and agents wrote there as users of their own.
    if os.geteuid():
        inside = f"{made}:/made"
        docker("run", "--rm", "--user", "0:0", "--volume", inside, built.forebay, "rm", "-rf",
               "/made/node", "/made/node-2", "/made/node-3")  # fmt: skip
    shutil.rmtree(made)
