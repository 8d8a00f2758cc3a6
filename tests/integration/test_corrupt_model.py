"""A stored archive that is not what its name says never reaches a Triton."""

import io
import shutil
from pathlib import Path

import nats

from services.wire import streams
from tests.support.chaos_model import write_chaos
from tests.support.forebay_up import ForebayUp


async def test_a_corrupt_archive_is_refused_and_told_by_status(tmp_path: Path) -> None:
    with ForebayUp(tmp_path / "state") as up:
        file = write_chaos(tmp_path / "one", name="one")
        up.forebay("deploy", file).ok()
        up.forebay("delete", "one").ok()

        # As by a disk that goes bad: other bytes under the same digest, and nothing cached.
        user, _, password = _credentials(up).partition(":")
        client = await nats.connect(_nats_address(up), user=user, password=password)
        try:
            store = await streams.models_store(client.jetstream())
            name = (await store.list())[0].name
            await store.put(name, io.BytesIO(b"not the archive" * 1000))
        finally:
            await client.close()
        shutil.rmtree(up.state_dir / "nodes" / "node-1" / "models")

        ran = up.forebay("deploy", file, "--timeout-s", "60")
        assert ran.code == 1
        assert "is corrupt" in ran.err
        assert "Deploy the model again" in up.forebay("status", "one", "-o", "json").out
        assert up.left(), "the mesh goes on"


def _credentials(up: ForebayUp) -> str:
    return next((up.state_dir / "nats").glob("*credentials*")).read_text().strip()


def _nats_address(up: ForebayUp) -> str:
    config = next((up.state_dir / "nats").glob("*.conf")).read_text()
    listen = next(line for line in config.splitlines() if line.strip().startswith("listen"))
    return "nats://" + listen.split(":", 1)[1].strip().strip("\"'")
