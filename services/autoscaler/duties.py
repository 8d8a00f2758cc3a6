"""What an autoscaler does beside scaling: each duty's parts are put together here."""

from collections.abc import Coroutine
from typing import Any

import grpc.aio

from forebay.v1 import schedule_pb2_grpc
from services.autoscaler.callbacks import addresses
from services.autoscaler.callbacks.caller import Caller
from services.autoscaler.callbacks.dispatcher import Dispatcher
from services.autoscaler.leadership import Leadership
from services.autoscaler.schedules.firing import Firing
from services.autoscaler.schedules.schedule_service import ScheduleService
from services.autoscaler.schedules.schedules import Schedules
from services.autoscaler.schedules.submitter import Submitter
from services.autoscaler.settings import AutoscalerSettings
from services.autoscaler.tasks.sweeper import TaskSweeper
from services.runtime.clock import Clock
from services.wire import streams
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
        self._sweeper = TaskSweeper(link, self._ledger, deployments, leadership, clock)
        caller = Caller(addresses.parse_networks(settings.callback_allowed_networks))
        self._callbacks = Dispatcher(link, leadership, clock, caller, settings.callback_secret_file)
        self._kept_schedules = KvMirror(link, streams.schedules_bucket)
        submitter = Submitter(link, self._ledger, deployments, clock)
        self._schedules = Schedules(self._kept_schedules, submitter, clock)
        self._firing = Firing(self._kept_schedules, submitter, leadership, clock)

    def serve(self, server: grpc.aio.Server) -> None:
        """Adds the services of the duties to a server that has not started."""
        schedules = ScheduleService(self._schedules)
        schedule_pb2_grpc.add_ScheduleServiceServicer_to_server(schedules, server)

    def work(self) -> dict[str, Coroutine[Any, Any, None]]:
        """The background work of the duties, which goes on for ever, by name."""
        return {
            "kept_schedules": self._kept_schedules.run(),
            "schedules": self._firing.run(),
            "task_sweeper": self._sweeper.run(),
            "callbacks": self._callbacks.run(),
        }
