"""Which deployments there are and how their replicas are, as the autoscaler last wrote it."""

import asyncio
from typing import TypeVar

import nats.errors
import nats.js.errors
import structlog
from nats.js.kv import KeyValue

from forebay.v1.deployment_pb2 import Deployment, DeploymentStatus
from services.wire import streams
from services.wire.nats_link import NatsLink

log = structlog.get_logger()

POLL_INTERVAL_S = 2.0

_SPEC = "spec."
_STATUS = "status."

M = TypeVar("M", Deployment, DeploymentStatus)


class DeploymentDirectory:
    """A copy of the deployments bucket: watched, and read anew on each reconnection."""

    def __init__(self, link: NatsLink) -> None:
        """An empty directory that fills when the link connects."""
        self._link = link
        self._deployments: dict[str, Deployment] = {}
        self._statuses: dict[str, DeploymentStatus] = {}
        self._reload = asyncio.Event()
        self.known = False
        link.on_connected(self._on_connected)

    def get(self, deployment_id: str) -> Deployment | None:
        """The deployment, or None if there is none of that id."""
        return self._deployments.get(deployment_id)

    def status(self, deployment_id: str) -> DeploymentStatus:
        """How its replicas are; all zero if nothing was said yet."""
        return self._statuses.get(deployment_id, DeploymentStatus())

    def ids(self) -> list[str]:
        """Ids of all deployments, sorted."""
        return sorted(self._deployments)

    async def _on_connected(self) -> None:
        await self._read_all(await streams.deployments_bucket(self._link.jetstream))
        self._reload.set()

    async def run(self) -> None:
        """Follows the bucket for ever."""
        while True:
            await self._reload.wait()
            self._reload.clear()
            try:
                await self._follow()
            except (nats.errors.Error, TimeoutError) as error:
                log.warning("directory.watch_failed", error=str(error) or type(error).__name__)
                await asyncio.sleep(0.25)
                self._reload.set()

    async def _follow(self) -> None:
        """Applies changes as they come; also reads all from time to time.

        A watch can end silently when nats-server restarts, so it is never the only source.
        """
        bucket = await streams.deployments_bucket(self._link.jetstream)
        watcher = await bucket.watchall()
        try:
            while not self._reload.is_set():
                try:
                    entry = await watcher.updates(timeout=POLL_INTERVAL_S)
                except nats.errors.TimeoutError:
                    if self._link.client.is_connected:
                        await self._read_all(bucket)
                    continue
                if entry is not None:
                    self._apply(entry.key, None if entry.operation else entry.value)
        finally:
            if self._link.client.is_connected:
                await watcher.stop()

    async def _read_all(self, bucket: KeyValue) -> None:
        try:
            keys = set(await bucket.keys())
        except nats.js.errors.NoKeysError:
            keys = set()
        gone = {_SPEC + i for i in self._deployments} | {_STATUS + i for i in self._statuses}
        for key in gone - keys:
            self._apply(key, None)
        for key in keys:
            try:
                self._apply(key, (await bucket.get(key)).value)
            except nats.js.errors.KeyNotFoundError:
                self._apply(key, None)
        self.known = True

    def _apply(self, key: str, value: bytes | None) -> None:
        if key.startswith(_SPEC):
            _set(self._deployments, key.removeprefix(_SPEC), value, Deployment)
        elif key.startswith(_STATUS):
            _set(self._statuses, key.removeprefix(_STATUS), value, DeploymentStatus)


def _set(table: dict[str, M], key: str, value: bytes | None, message_class: type[M]) -> None:
    if value is None:
        table.pop(key, None)
    else:
        table[key] = message_class.FromString(value)
