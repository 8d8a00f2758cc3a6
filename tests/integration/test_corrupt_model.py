"""A stored archive that is not what its name says never reaches a Triton, and can be replaced."""

import io
import json
import os
import shutil
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from forebay.v1.model_pb2 import Model
from services.autoscaler.model_store import ModelStore
from services.wire import model_archive, streams
from services.wire.nats_link import NatsLink
from tests.support.chaos_model import write_chaos
from tests.support.control_plane import linked
from tests.support.eventually import eventually
from tests.support.forebay_up import ForebayUp
from tests.support.nats_server import NatsServer


async def test_a_corrupt_archive_is_told_by_status_and_deploying_again_replaces_it(
    tmp_path: Path,
) -> None:
    with ForebayUp(tmp_path / "state") as up:
        file = write_chaos(tmp_path / "one", name="one")
        up.forebay("deploy", file).ok()

        # As by a disk that goes bad: other bytes under the same digest, and nothing cached.
        async with _connected(up) as link:
            await _replace(link, b"not the archive" * 1000)
        shutil.rmtree(up.state_dir / "nodes" / "node-1" / "models")
        _kill_tritons(up)

        def told() -> bool:
            status = up.forebay("status", "one", "-o", "json").out
            return "is corrupt" in status and "Deploy the model again" in status

        await eventually(told, 90)
        assert up.left(), "the mesh goes on"

        up.forebay("delete", "one").ok()
        up.forebay("deploy", file, "--timeout-s", "90").ok()


async def test_what_is_not_whole_counts_as_absent_until_it_is_uploaded_again(
    tmp_path: Path,
) -> None:
    write_chaos(tmp_path)
    out = io.BytesIO()
    digest = model_archive.pack(tmp_path / "model", out)
    model = Model(digest=digest, size_bytes=len(out.getvalue()))

    async def chunks() -> AsyncIterator[bytes]:
        yield out.getvalue()

    with NatsServer(tmp_path / "nats") as server:
        async with linked(server.url) as link:
            store = ModelStore(link, None)
            for damage in (_replace, _lose_chunks):
                assert await store.take(model, chunks()) == model
                assert await store.find(digest) == model
                await damage(link, b"other bytes")
                assert await store.find(digest) is None
            assert await store.take(model, chunks()) == model
            assert await store.find(digest) == model
            fetched = await (await streams.models_store(link.jetstream)).get(
                streams.model_object_name(digest)
            )
            assert fetched.data == out.getvalue()


async def _replace(link: NatsLink, content: bytes) -> None:
    store = await streams.models_store(link.jetstream)
    name = (await store.list())[0].name
    await store.put(name, io.BytesIO(content))


async def _lose_chunks(link: NatsLink, _: bytes) -> None:
    await link.jetstream.purge_stream(
        f"OBJ_{streams.MODELS_BUCKET}", subject=f"$O.{streams.MODELS_BUCKET}.C.>"
    )


@asynccontextmanager
async def _connected(up: ForebayUp) -> AsyncIterator[NatsLink]:
    credentials = next((up.state_dir / "nats").glob("*credentials*"))
    config = next((up.state_dir / "nats").glob("*.conf")).read_text()
    listen = next(line for line in config.splitlines() if line.strip().startswith("listen"))
    address = listen.split(":", 1)[1].strip().strip("\"'")
    async with linked(f"nats://{address}", credentials) as link:
        yield link


def _kill_tritons(up: ForebayUp) -> None:
    records = list((up.state_dir / "nodes" / "node-1" / "replicas").glob("*/process.json"))
    assert records
    for record in records:
        os.kill(json.loads(record.read_text())["pid"], signal.SIGKILL)
