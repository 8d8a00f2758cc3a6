"""What an autoscaler does beside scaling: each duty's parts are put together here."""

from collections.abc import Coroutine
from typing import Any

import grpc.aio

from services.autoscaler.leadership import Leadership
from services.autoscaler.settings import AutoscalerSettings
from services.runtime.clock import Clock
from services.wire.kv_mirror import KvMirror
from services.wire.nats_link import NatsLink
from services.wire.tasks.ledger import TaskLedger


class Duties:
    """Everything but scaling that lives in the autoscaler."""

    def __init__(
        self,
        settings: AutoscalerSettings,
        link: NatsLink,
        deployments: KvMirror,
        assignments: KvMirror,
        leadership: Leadership,
        clock: Clock,
    ) -> None:
        """Puts the parts together; they work once the link is connected.

        Args:
            settings: of the autoscaler.
            link: to NATS.
            deployments: what is declared, `spec.{deployment}`.
            assignments: what nodes must run, `node.{node}`.
            leadership: whether this autoscaler leads.
            clock: tells the time.
        """
        self._ledger = TaskLedger(link)

    def serve(self, server: grpc.aio.Server) -> None:
        """Adds the services of the duties to a server that has not started."""

    def work(self) -> dict[str, Coroutine[Any, Any, None]]:
        """The background work of the duties, which goes on for ever, by name."""
        return {}
