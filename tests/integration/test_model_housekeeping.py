"""Models that nothing names any more, in a real object store."""

import io
from collections.abc import AsyncIterator
from pathlib import Path

from forebay.v1.model_pb2 import Model
from services.autoscaler.model_store import KEPT_UNUSED_S, ModelStore
from services.wire import model_archive
from tests.support.control_plane import linked
from tests.support.nats_server import NatsServer


async def _stored(store: ModelStore, directory: Path, text: str) -> str:
    (directory / "1").mkdir(parents=True)
    (directory / "config.pbtxt").write_text('backend: "python"\n')
    (directory / "1" / "model.py").write_text(text)
    archive = io.BytesIO()
    digest = model_archive.pack(directory, archive)

    async def chunks() -> AsyncIterator[bytes]:
        yield archive.getvalue()

    await store.take(Model(digest=digest, size_bytes=len(archive.getvalue())), chunks())
    return digest


async def test_only_a_model_that_nothing_has_named_for_a_day_goes(tmp_path: Path) -> None:
    with NatsServer(tmp_path / "nats") as server:
        async with linked(server.url) as link:
            await _goes(ModelStore(link, None), tmp_path)


async def _goes(store: ModelStore, tmp_path: Path) -> None:
    kept = await _stored(store, tmp_path / "kept", "kept")
    unused = await _stored(store, tmp_path / "unused", "unused")
    again = await _stored(store, tmp_path / "again", "again")
    assert await store.clear_away({kept}, 0.0) == []
    # Named again in between: its day begins anew when it is not.
    assert await store.clear_away({kept, again}, KEPT_UNUSED_S / 2) == []
    assert len(await store.clear_away({kept}, KEPT_UNUSED_S)) == 1
    assert await store.find(unused) is None
    assert await store.find(kept) is not None
    assert await store.find(again) is not None
    assert len(await store.clear_away({kept}, 2 * KEPT_UNUSED_S)) == 1
    assert await store.find(again) is None
    assert await store.clear_away({kept}, 9 * KEPT_UNUSED_S) == []
