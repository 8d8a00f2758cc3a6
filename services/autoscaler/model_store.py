"""Models in the object store, by digest."""

import asyncio
import errno
import hashlib
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Set
from contextlib import asynccontextmanager
from pathlib import Path
from typing import IO

import grpc
import nats.errors
import nats.js.errors
import structlog
from nats.js.api import ObjectMeta, ObjectMetaOptions

from forebay.v1.model_pb2 import Model
from services.wire import limits, model_archive, stored_models, streams
from services.wire.names import quoted
from services.wire.nats_link import NatsLink
from services.wire.status import StatusError, invalid_argument

log = structlog.get_logger()

MAX_UPLOADS = 4
"""Uploads at the same time: each may take as much disk as the largest model."""

KEPT_UNUSED_S = 24 * 3600.0
"""How long a model that no deployment names is kept, so that going back needs no upload."""

# Errors of JetStream that mean that there is no room left.
_NO_ROOM = {10023, 10047, 10077}


class ModelStore:
    """Checks and keeps models."""

    def __init__(self, link: NatsLink, spool_dir: Path | None) -> None:
        """Prepares the store.

        Args:
            link: the connection to NATS.
            spool_dir: where uploads are kept until they are checked; None: the system's
                temporary folder.
        """
        self._link = link
        self._spool_dir = spool_dir
        self._uploads = 0
        self._unused_since_s: dict[str, float] = {}
        self._locks: dict[str, asyncio.Lock] = {}
        self._waiting: Counter[str] = Counter()

    async def find(self, digest: str) -> Model | None:
        """What is known of a model; None if it is not there, or not whole as it was stored.

        Raises:
            StatusError: INVALID_ARGUMENT if it is no digest.
            nats.errors.Error: if NATS cannot be reached.
        """
        check_digest(digest)
        store = await streams.models_store(self._link.jetstream)
        try:
            info = await store.get_info(streams.model_object_name(digest))
        except nats.js.errors.NotFoundError:
            return None
        if not await stored_models.is_intact(self._link.jetstream, digest, info):
            log.warning("model.corrupt", digest=digest)
            return None
        return Model(digest=digest, size_bytes=info.size or 0)

    async def clear_away(self, wanted: Set[str], now_s: float) -> list[str]:
        """Deletes models that have not been named by anything for KEPT_UNUSED_S.

        Args:
            wanted: digests that deployments and assignments name.
            now_s: seconds on a clock that never goes back.

        Returns:
            Names of the objects that were deleted.

        Raises:
            nats.errors.Error: if NATS cannot be reached.
        """
        store = await streams.models_store(self._link.jetstream)
        names = {streams.model_object_name(digest) for digest in wanted}
        try:
            stored = {info.name for info in await store.list(ignore_deletes=True)}
        except nats.js.errors.NotFoundError:
            stored = set()
        # Since when this process has seen each of them unused; a restart begins anew.
        self._unused_since_s = {
            name: self._unused_since_s.get(name, now_s) for name in stored - names
        }
        gone = [
            name
            for name, since_s in self._unused_since_s.items()
            if now_s - since_s >= KEPT_UNUSED_S
        ]
        for name in gone:
            await store.delete(name)
            log.info("model.cleared_away", model=name)
        return gone

    async def take(self, model: Model, chunks: AsyncIterator[bytes]) -> Model:
        """Takes an upload: spools it, checks it, stores it.

        Args:
            model: what the caller says is coming.
            chunks: the archive.

        Raises:
            StatusError: INVALID_ARGUMENT if it is not what was announced or no model archive;
                RESOURCE_EXHAUSTED if there is no room.
            nats.errors.Error: if NATS cannot be reached.
        """
        check_digest(model.digest)
        if not 0 < model.size_bytes <= limits.MAX_MODEL_BYTES:
            raise invalid_argument(
                f"model.size_bytes = {model.size_bytes}: it must be 1 to {limits.MAX_MODEL_BYTES}"
            )
        if self._uploads >= MAX_UPLOADS:
            raise StatusError(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"{MAX_UPLOADS} models are being uploaded already: try again when one is done",
            )
        self._uploads += 1
        try:
            async with self._alone_with(model.digest):
                stored = await self.find(model.digest)
                if stored is not None:
                    # Answered after the last chunk: not every client takes an early answer well.
                    async for _ in chunks:
                        pass
                    return stored
                return await self._take(model, chunks)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise StatusError(
                    grpc.StatusCode.RESOURCE_EXHAUSTED,
                    "the autoscaler's spool_dir has no room for the model",
                ) from error
            raise
        finally:
            self._uploads -= 1

    async def _take(self, model: Model, chunks: AsyncIterator[bytes]) -> Model:
        with tempfile.NamedTemporaryFile(dir=self._spool_dir, prefix="forebay-model-") as spool:
            await _spool(spool.file, model, chunks)
            try:
                await asyncio.to_thread(model_archive.check, Path(spool.name))
            except model_archive.ModelArchiveError as error:
                raise invalid_argument(str(error)) from error
            spool.seek(0)
            await self._store(model.digest, spool.file)
        log.info("model.stored", digest=model.digest, size_bytes=model.size_bytes)
        return Model(digest=model.digest, size_bytes=model.size_bytes)

    async def _store(self, digest: str, archive: IO[bytes]) -> None:
        store = await streams.models_store(self._link.jetstream)
        options = ObjectMetaOptions(max_chunk_size=limits.MODEL_CHUNK_BYTES)
        name = streams.model_object_name(digest)
        try:
            # Reads in the executor: a slow disk must not stop the event loop.
            await store.put(name, archive, ObjectMeta(name=name, options=options))
        except nats.js.errors.APIError as error:
            if error.err_code in _NO_ROOM:
                raise StatusError(
                    grpc.StatusCode.RESOURCE_EXHAUSTED,
                    f"JetStream has no room for the model: {error.description}",
                ) from error
            raise

    @asynccontextmanager
    async def _alone_with(self, digest: str) -> AsyncIterator[None]:
        """Keeps two uploads of one model from storing it twice at the same time."""
        lock = self._locks.setdefault(digest, asyncio.Lock())
        self._waiting[digest] += 1
        try:
            async with lock:
                yield
        finally:
            self._waiting[digest] -= 1
            if not self._waiting[digest]:
                del self._locks[digest], self._waiting[digest]


def check_digest(digest: str) -> None:
    """Checks that a caller's digest is one.

    Raises:
        StatusError: INVALID_ARGUMENT if it is not.
    """
    if not model_archive.is_digest(digest):
        raise invalid_argument(
            f"digest = {quoted(digest)}: it must be sha256: and 64 hexadecimal digits in lower case"
        )


async def _spool(file: IO[bytes], model: Model, chunks: AsyncIterator[bytes]) -> None:
    sha256 = hashlib.sha256()
    size_bytes = 0

    def append(chunk: bytes) -> None:
        sha256.update(chunk)
        file.write(chunk)

    async for chunk in chunks:
        size_bytes += len(chunk)
        if size_bytes > model.size_bytes:
            raise invalid_argument(f"more than the {model.size_bytes} bytes announced were sent")
        await asyncio.to_thread(append, chunk)
    if size_bytes != model.size_bytes:
        raise invalid_argument(f"{size_bytes} of the {model.size_bytes} bytes announced were sent")
    actual = f"sha256:{sha256.hexdigest()}"
    if actual != model.digest:
        raise invalid_argument(
            f"the archive is damaged: its digest is {actual}, not {model.digest} as announced"
        )
    await asyncio.to_thread(file.flush)
