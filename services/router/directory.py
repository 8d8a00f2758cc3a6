"""Which deployments there are and how their replicas are, as the autoscaler last wrote it."""

from typing import TypeVar

from forebay.v1.deployment_pb2 import Deployment, DeploymentStatus
from services.wire import names, streams
from services.wire.kv_mirror import KvMirror
from services.wire.nats_link import NatsLink

_SPEC = "spec."
_STATUS = "status."
_NO_STATUS = DeploymentStatus()

M = TypeVar("M", Deployment, DeploymentStatus)


class DeploymentDirectory:
    """The deployments bucket, parsed; each entry once per revision."""

    def __init__(self, link: NatsLink) -> None:
        """An empty directory that fills when the link connects."""
        self._mirror = KvMirror(link, streams.deployments_bucket)
        self._deployments: dict[str, tuple[int, Deployment]] = {}
        self._statuses: dict[str, tuple[int, DeploymentStatus]] = {}

    @property
    def known(self) -> bool:
        """Whether the deployments have been read since the process began."""
        return self._mirror.known

    def get(self, deployment_id: str) -> Deployment | None:
        """The deployment, or None if there is none of that id."""
        return self._parsed(_SPEC + deployment_id, self._deployments, Deployment)

    async def find(self, deployment_id: str) -> Deployment | None:
        """As `get`, but asks NATS before it says that there is none: it may be quite new."""
        found = self.get(deployment_id)
        if found is None and self.known and names.is_id(deployment_id):
            await self._mirror.look(_SPEC + deployment_id)
            found = self.get(deployment_id)
        return found

    def status(self, deployment_id: str) -> DeploymentStatus:
        """How its replicas are; all zero if nothing was said yet."""
        found = self._parsed(_STATUS + deployment_id, self._statuses, DeploymentStatus)
        return found or _NO_STATUS

    def ids(self) -> list[str]:
        """Ids of all deployments, sorted."""
        return sorted(self._mirror.entries(_SPEC))

    async def run(self) -> None:
        """Follows the bucket for ever."""
        await self._mirror.run()

    def _parsed(self, key: str, cache: dict[str, tuple[int, M]], message: type[M]) -> M | None:
        entry = self._mirror.get(key)
        if entry is None:
            cache.pop(key, None)
            return None
        cached = cache.get(key)
        if cached is None or cached[0] != entry.revision:
            cached = cache[key] = (entry.revision, message.FromString(entry.value))
        return cached[1]
