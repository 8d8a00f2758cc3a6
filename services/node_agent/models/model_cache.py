"""Models of this node: fetched by digest, verified, unpacked once, and made into repositories."""

import asyncio
import os
import shutil
import tempfile
from pathlib import Path
from typing import BinaryIO, cast

import nats.errors
import nats.js.errors
import structlog
from google.protobuf import text_format

from services.node_agent.triton.instance_groups import with_workers, without_gpus
from services.wire import model_archive, stored_models, streams
from services.wire.nats_link import NatsLink

log = structlog.get_logger()

FETCH_TIMEOUT_S = 1800.0
KEPT_UNUSED = 4
_SCRATCH = ".fetch-"


class ModelError(Exception):
    """The model cannot be had or is not what it should be."""


class ModelCache:
    """Unpacked models by digest."""

    def __init__(self, directory: Path, link: NatsLink) -> None:
        """A cache in a directory of its own; what a killed agent was fetching is removed."""
        self._directory = directory
        self._link = link
        self._locks: dict[str, asyncio.Lock] = {}
        for left in directory.glob(f"{_SCRATCH}*"):
            shutil.rmtree(left, ignore_errors=True)

    async def fetch(self, digest: str) -> Path:
        """Directory of the unpacked model.

        Raises:
            ModelError: if it is not there, does not have its digest, cannot be fetched now or not
                be written; nothing of it is left.
        """
        target = self._directory / streams.model_object_name(digest)
        async with self._locks.setdefault(digest, asyncio.Lock()):
            try:
                if not target.is_dir():
                    await self._download(digest, target)
                os.utime(target)
            except OSError as error:
                raise ModelError(
                    f"model {digest} cannot be kept in {self._directory}: {error.strerror or error}"
                ) from error
        return target

    async def _download(self, digest: str, target: Path) -> None:
        self._directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self._directory, prefix=_SCRATCH) as scratch:
            archive = Path(scratch) / "model.tar"
            try:
                async with asyncio.timeout(FETCH_TIMEOUT_S):
                    # The rest of an object does not come when the connection is lost in it.
                    await self._link.unless_lost(self._read_object(digest, archive))
            except nats.js.errors.NotFoundError:
                raise ModelError(f"model {digest} is not in the store: deploy it again") from None
            except nats.js.errors.DigestMismatchError:
                raise _corrupt(digest) from None
            except (nats.errors.Error, TimeoutError) as error:
                raise ModelError(
                    f"model {digest} could not be fetched: {error or 'timeout'}"
                ) from error
            if await asyncio.to_thread(model_archive.digest, archive) != digest:
                raise _corrupt(digest)
            unpacked = Path(scratch) / "model"
            try:
                await asyncio.to_thread(model_archive.unpack, archive, unpacked)
            except model_archive.ModelArchiveError as error:
                raise ModelError(f"model {digest}: {error}") from error
            unpacked.rename(target)
        log.info("model.fetched", digest=digest)

    async def _read_object(self, digest: str, path: Path) -> None:
        js, name = self._link.jetstream, streams.model_object_name(digest)
        store = await streams.models_store(js)
        if not await stored_models.is_intact(js, digest, await store.get_info(name)):
            raise _corrupt(digest)
        with path.open("wb") as out:
            await store.get(name, writeinto=cast(BinaryIO, out))

    async def prune(self, used: set[str]) -> None:
        """Removes models that no replica uses, but for the few used last.

        They are out of the way before this first waits: what is fetched meanwhile is fetched anew.

        Raises:
            OSError: if one cannot be moved away.
        """
        if not self._directory.is_dir():
            return
        names = {streams.model_object_name(digest) for digest in used}
        unused = [
            path
            for path in self._directory.iterdir()
            if path.is_dir() and not path.name.startswith(".") and path.name not in names
        ]
        unused.sort(key=lambda path: path.stat().st_mtime, reverse=True)
        removed = []
        for path in unused[KEPT_UNUSED:]:
            gone = Path(tempfile.mkdtemp(dir=self._directory, prefix=_SCRATCH))
            path.rename(gone / path.name)
            removed.append(gone)
            log.info("model.removed", name=path.name)
        for gone in removed:
            await asyncio.to_thread(shutil.rmtree, gone, ignore_errors=True)


def build_repository(
    model: Path,
    repository: Path,
    name: str,
    workers: int = 0,
    gpus_simulated: bool = False,
    seen_at: Path | None = None,
) -> None:
    """Makes a Triton model repository with one model, under the deployment's name.

    Args:
        model: the unpacked model.
        repository: made anew.
        name: what Triton shall call the model; replaces a `name` in config.pbtxt.
        workers: instances of the model; 0 leaves it to config.pbtxt.
        gpus_simulated: whether what config.pbtxt puts on GPUs runs on the CPU.
        seen_at: where Triton sees the model, and whoever it runs as can read the repository;
            unset: where it is, as this user.
    """
    shutil.rmtree(repository, ignore_errors=True)
    directory = repository / name
    directory.mkdir(parents=True)
    for entry in model.iterdir():
        if entry.name != "config.pbtxt":
            target = entry.resolve() if seen_at is None else seen_at / entry.name
            (directory / entry.name).symlink_to(target)
    config = model_archive.parse_config((model / "config.pbtxt").read_bytes())
    config = with_workers(config, workers)
    if gpus_simulated:
        config = without_gpus(config)
    config.name = name
    (directory / "config.pbtxt").write_text(text_format.MessageToString(config))
    if seen_at is not None:
        # Whatever this process' umask is.
        for path, mode in ((repository, 0o755), (directory, 0o755)):
            path.chmod(mode)
        (directory / "config.pbtxt").chmod(0o644)


def _corrupt(digest: str) -> ModelError:
    return ModelError(f"the stored archive of model {digest} is corrupt. Deploy the model again")
