"""Models fetched from a real nats-server."""

import asyncio
import hashlib
import io
import os
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.node_agent.models.model_cache import KEPT_UNUSED, ModelCache, ModelError
from services.wire import model_archive, streams
from services.wire.nats_link import NatsLink
from tests.support.control_plane import linked
from tests.support.nats_server import NatsServer

CONFIG = b'backend: "python"\n'


@pytest.fixture
async def link(tmp_path: Path) -> AsyncIterator[NatsLink]:
    with NatsServer(tmp_path / "nats") as server:
        async with linked(server.url) as made:
            yield made


@pytest.fixture
def cache(tmp_path: Path, link: NatsLink) -> ModelCache:
    return ModelCache(tmp_path / "models", link)


async def store(link: NatsLink, archive: bytes, under: str = "") -> str:
    """Stores an archive as the autoscaler does, under its digest or another; returns that."""
    kept = await streams.models_store(link.jetstream)
    digest = under or digest_of(archive)
    await kept.put(streams.model_object_name(digest), io.BytesIO(archive))
    return digest


def digest_of(archive: bytes) -> str:
    return f"sha256:{hashlib.sha256(archive).hexdigest()}"


def packed(tmp_path: Path, code: str = "pass") -> bytes:
    directory = tmp_path / "source"
    (directory / "1").mkdir(parents=True, exist_ok=True)
    (directory / "config.pbtxt").write_bytes(CONFIG)
    (directory / "1" / "model.py").write_text(code)
    out = io.BytesIO()
    model_archive.pack(directory, out)
    return out.getvalue()


def left(tmp_path: Path) -> list[str]:
    """What is in the cache's directory."""
    return sorted(path.name for path in (tmp_path / "models").iterdir())


async def test_a_model_is_fetched_once(tmp_path: Path, link: NatsLink, cache: ModelCache) -> None:
    digest = await store(link, packed(tmp_path))
    fetched = await cache.fetch(digest)
    assert (fetched / "1" / "model.py").read_text() == "pass"
    kept = await streams.models_store(link.jetstream)
    await kept.delete(streams.model_object_name(digest))
    assert await cache.fetch(digest) == fetched
    assert left(tmp_path) == [fetched.name]


async def test_a_model_that_is_not_stored_is_to_be_deployed_again(
    tmp_path: Path, cache: ModelCache
) -> None:
    with pytest.raises(ModelError, match="is not in the store: deploy it again"):
        await cache.fetch("sha256:" + 64 * "0")
    assert left(tmp_path) == []


async def test_an_archive_that_is_not_what_its_name_says_is_refused(
    tmp_path: Path, link: NatsLink, cache: ModelCache
) -> None:
    digest = await store(link, packed(tmp_path, "other"), under="sha256:" + 64 * "0")
    with pytest.raises(ModelError, match=r"is corrupt\. Deploy the model again"):
        await cache.fetch(digest)
    assert left(tmp_path) == []


async def test_an_archive_that_the_store_has_lost_is_refused_at_once(
    tmp_path: Path, link: NatsLink, cache: ModelCache
) -> None:
    digest = await store(link, packed(tmp_path))
    bucket = streams.MODELS_BUCKET
    await link.jetstream.purge_stream(f"OBJ_{bucket}", subject=f"$O.{bucket}.C.>")
    async with asyncio.timeout(30):
        with pytest.raises(ModelError, match=r"is corrupt\. Deploy the model again"):
            await cache.fetch(digest)
    assert left(tmp_path) == []


async def test_what_cannot_be_unpacked_leaves_nothing_behind(
    tmp_path: Path, link: NatsLink, cache: ModelCache
) -> None:
    no_tar = await store(link, b"no tar" * 1000)
    with pytest.raises(ModelError, match="model sha256:"):
        await cache.fetch(no_tar)

    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        # The file system takes names of at most 255 bytes, so this one fails after the first.
        for name in ("config.pbtxt", "1/" + 300 * "n"):
            entry = tarfile.TarInfo(name)
            entry.size = len(CONFIG)
            archive.addfile(entry, io.BytesIO(CONFIG))
    too_long = await store(link, out.getvalue())
    with pytest.raises(ModelError, match=r"cannot be kept in .*: File name too long"):
        await cache.fetch(too_long)
    assert left(tmp_path) == []


async def test_a_directory_that_cannot_be_written_is_told_in_a_sentence(
    tmp_path: Path, link: NatsLink
) -> None:
    (tmp_path / "file").touch()
    digest = await store(link, packed(tmp_path))
    with pytest.raises(ModelError, match=r"cannot be kept in .*: Not a directory"):
        await ModelCache(tmp_path / "file" / "models", link).fetch(digest)


async def test_pruning_keeps_what_is_used_and_what_was_used_last(
    tmp_path: Path, link: NatsLink, cache: ModelCache
) -> None:
    digests = [await store(link, packed(tmp_path, str(number))) for number in range(7)]
    for age_s, digest in enumerate(digests):
        os.utime(await cache.fetch(digest), (age_s, age_s))
    await cache.prune({digests[0]})
    kept = {digests[0], *digests[-KEPT_UNUSED:]}
    assert left(tmp_path) == sorted(map(streams.model_object_name, kept))


async def test_what_a_killed_agent_was_fetching_is_removed(tmp_path: Path, link: NatsLink) -> None:
    (tmp_path / "models" / ".fetch-abc" / "model").mkdir(parents=True)
    ModelCache(tmp_path / "models", link)
    assert left(tmp_path) == []
