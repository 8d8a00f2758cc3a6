"""Deployments as they are kept: each change is one compare-and-set of one key."""

from collections.abc import Sequence
from typing import NoReturn

import grpc
import nats.js.errors
import structlog
from google.protobuf.field_mask_pb2 import FieldMask

from forebay.v1.deployment_pb2 import Deployment, DeploymentStatus
from services.autoscaler import deployment_rules as rules
from services.autoscaler.consumers import Consumers
from services.autoscaler.custom.runner import CustomPolicies
from services.autoscaler.model_store import ModelStore
from services.runtime.clock import Clock
from services.wire import names
from services.wire.kv_mirror import KvEntry, KvMirror
from services.wire.status import StatusError, invalid_argument

log = structlog.get_logger()

MAX_DEPLOYMENTS = 10_000
WRITE_ATTEMPTS = 5

NOT_LOOKED_AT = "the last change has not been acted on yet"


class Deployments:
    """Creates, reads, changes and deletes deployments."""

    def __init__(
        self,
        mirror: KvMirror,
        models: ModelStore,
        consumers: Consumers,
        clock: Clock,
        custom: CustomPolicies | None = None,
    ) -> None:
        """Over the mirror of the deployments bucket.

        Args:
            mirror: of the bucket.
            models: what deployments may run.
            consumers: made for each deployment.
            clock: says when something was changed.
            custom: tries the functions of custom policies; None: they are not tried.
        """
        self._mirror = mirror
        self._models = models
        self._consumers = consumers
        self._clock = clock
        self._custom = custom

    async def create(
        self, deployment_id: str, requested: Deployment, validate_only: bool
    ) -> Deployment:
        """Creates a deployment.

        Raises:
            StatusError: INVALID_ARGUMENT, ALREADY_EXISTS, FAILED_PRECONDITION (no such model) or
                RESOURCE_EXHAUSTED (too many).
            nats.errors.Error: if NATS cannot be reached.
        """
        self._check_known()
        try:
            names.check_id(deployment_id, "deployment")
        except names.InvalidNameError as error:
            raise invalid_argument(f"deployment_id: {error}") from error
        deployment = rules.declared(requested)
        deployment.name = names.deployment_name(deployment_id)
        deployment.generation = 1
        if self._mirror.get(_spec(deployment_id)) is not None:
            _already_exists(deployment_id)
        if len(self._mirror.entries("spec.")) >= MAX_DEPLOYMENTS:
            raise StatusError(
                grpc.StatusCode.RESOURCE_EXHAUSTED, f"there are {MAX_DEPLOYMENTS} deployments"
            )
        await self._check_model(deployment.model_digest)
        await self._check_custom(deployment, before=())
        if validate_only:
            return deployment
        now_ns = int(self._clock.wall_s() * 1e9)
        deployment.create_time.FromNanoseconds(now_ns)
        deployment.update_time.FromNanoseconds(now_ns)
        try:
            entry = await self._mirror.put(_spec(deployment_id), _stored(deployment), 0)
        except nats.js.errors.KeyWrongLastSequenceError:
            _already_exists(deployment_id)
        await self._consumers.ensure(deployment_id)
        log.info("deployment.created", deployment=deployment_id)
        return self._shown(deployment_id, entry)

    def get(self, name: str) -> Deployment:
        """Returns a deployment.

        Raises:
            StatusError: INVALID_ARGUMENT or NOT_FOUND.
        """
        deployment_id, entry = self._find(name)
        return self._shown(deployment_id, entry)

    def list_all(self) -> list[Deployment]:
        """All deployments by name."""
        self._check_known()
        entries = self._mirror.entries("spec.")
        return [
            self._shown(deployment_id, entries[deployment_id]) for deployment_id in sorted(entries)
        ]

    async def update(
        self, requested: Deployment, mask: FieldMask | None, validate_only: bool
    ) -> Deployment:
        """Changes a deployment.

        Raises:
            StatusError: INVALID_ARGUMENT, NOT_FOUND, FAILED_PRECONDITION (no such model) or
                ABORTED (stale etag, or others keep changing it).
            nats.errors.Error: if NATS cannot be reached.
        """
        for _ in range(WRITE_ATTEMPTS):
            deployment_id, entry = self._find(requested.name)
            _check_etag(requested.etag, entry)
            current = Deployment.FromString(entry.value)
            changed = rules.merged(current, requested, mask)
            if changed.model_digest != current.model_digest:
                await self._check_model(changed.model_digest)
            await self._check_custom(changed, rules.custom_functions(current.scaling))
            if not rules.runs_the_same(current, changed):
                changed.generation = current.generation + 1
            if validate_only or changed == current:
                return self._shown(deployment_id, KvEntry(_stored(changed), entry.revision))
            changed.update_time.FromNanoseconds(int(self._clock.wall_s() * 1e9))
            try:
                entry = await self._mirror.put(
                    _spec(deployment_id), _stored(changed), entry.revision
                )
            except nats.js.errors.KeyWrongLastSequenceError:
                await self._refresh(deployment_id, entry)
                continue
            log.info("deployment.updated", deployment=deployment_id, generation=changed.generation)
            return self._shown(deployment_id, entry)
        raise StatusError(
            grpc.StatusCode.ABORTED, f"others keep changing {requested.name}: read it, try again"
        )

    async def delete(self, name: str, etag: str, validate_only: bool) -> None:
        """Deletes a deployment; its replicas are drained.

        Raises:
            StatusError: INVALID_ARGUMENT, NOT_FOUND or ABORTED (stale etag).
            nats.errors.Error: if NATS cannot be reached.
        """
        for _ in range(WRITE_ATTEMPTS):
            deployment_id, entry = self._find(name)
            _check_etag(etag, entry)
            if validate_only:
                return
            try:
                await self._mirror.delete(_spec(deployment_id))
            except nats.js.errors.KeyWrongLastSequenceError:
                await self._refresh(deployment_id, entry)
                continue
            log.info("deployment.deleted", deployment=deployment_id)
            await self._consumers.clear_away(deployment_id)
            return
        raise StatusError(grpc.StatusCode.ABORTED, f"others keep changing {name}: try again")

    def _find(self, name: str) -> tuple[str, KvEntry]:
        self._check_known()
        try:
            deployment_id = names.deployment_id(name)
        except names.InvalidNameError as error:
            raise invalid_argument(f"name: {error}") from error
        entry = self._mirror.get(_spec(deployment_id))
        if entry is None:
            raise StatusError(grpc.StatusCode.NOT_FOUND, f"there is no deployment {deployment_id}")
        return deployment_id, entry

    async def _refresh(self, deployment_id: str, stale: KvEntry) -> None:
        """Sees to it that the next attempt is based on what beat this one."""
        if self._mirror.get(_spec(deployment_id)) == stale:
            await self._mirror.reload()

    def _shown(self, deployment_id: str, entry: KvEntry) -> Deployment:
        deployment: Deployment = Deployment.FromString(entry.value)
        deployment.etag = _etag(entry)
        status = self._mirror.get(f"status.{deployment_id}")
        deployment.status.CopyFrom(DeploymentStatus.FromString(status.value if status else b""))
        if deployment.status.observed_revision < entry.revision:
            # Written before the last change: whoever waits for it must not take it for done.
            deployment.status.updated_replica_count = 0
            deployment.status.message = NOT_LOOKED_AT
        return deployment

    def _check_known(self) -> None:
        if not self._mirror.known:
            raise StatusError(
                grpc.StatusCode.UNAVAILABLE, "deployments are not known yet: NATS does not answer"
            )

    async def _check_model(self, digest: str) -> None:
        if await self._models.find(digest) is None:
            raise StatusError(
                grpc.StatusCode.FAILED_PRECONDITION,
                f"model_digest = {digest}: that model was not uploaded; upload it first",
            )

    async def _check_custom(self, deployment: Deployment, before: Sequence[str]) -> None:
        """Tries the functions of custom policies that are new to a deployment."""
        if self._custom is None:
            return
        for function in rules.custom_functions(deployment.scaling):
            if function in before:
                continue
            if reason := await self._custom.check(function):
                whole = deployment.scaling.policy.HasField("custom")
                field = "scaling.policy" if whole else "scaling.policy.max_of.policies"
                raise invalid_argument(
                    f"{field}.custom.function = {names.quoted(function)}: {reason}"
                )


def _spec(deployment_id: str) -> str:
    return f"spec.{deployment_id}"


def _stored(deployment: Deployment) -> bytes:
    stored = Deployment()
    stored.CopyFrom(deployment)
    stored.ClearField("etag")
    stored.ClearField("status")
    return bytes(stored.SerializeToString(deterministic=True))


def _etag(entry: KvEntry) -> str:
    return f"{entry.revision:x}"


def _check_etag(etag: str, entry: KvEntry) -> None:
    if etag and etag != _etag(entry):
        raise StatusError(
            grpc.StatusCode.ABORTED,
            f"etag = {names.quoted(etag)} is stale: the deployment has changed; read it again",
        )


def _already_exists(deployment_id: str) -> NoReturn:
    raise StatusError(
        grpc.StatusCode.ALREADY_EXISTS,
        f"there is a deployment {deployment_id} already: update it, or choose another name",
    )
