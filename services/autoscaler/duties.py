"""What an autoscaler does beside scaling: each duty's parts are put together here."""

from collections.abc import Callable, Coroutine
from typing import Any

import grpc.aio

from forebay.v1 import schedule_pb2_grpc, usage_pb2_grpc
from forebay.v1.metrics_pb2 import Snapshot
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
from services.autoscaler.usage.accountant import Accountant
from services.autoscaler.usage.batches import BatchSums
from services.autoscaler.usage.store import UsageStore
from services.autoscaler.usage.usage_service import UsageService
from services.runtime.clock import Clock
from services.wire import streams
from services.wire.kv_mirror import KvMirror
from services.wire.nats_link import NatsLink
from services.wire.server_clock import ServerClock
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
        snapshot: Callable[[], Snapshot | None],
        clock: Clock,
    ) -> None:
        """Puts the parts together; they work once the link is connected.

        Args:
            settings: of the autoscaler.
            link: to NATS.
            deployments: what is declared, `spec.{deployment}`.
            assignments: what nodes must run, `node.{node}`.
            leadership: whether this autoscaler leads.
            snapshot: what metrics sees now; None if that is not known.
            clock: tells the time.
        """
        self._clock = clock
        self._ledger = TaskLedger(link)
        reader = self._ledger.reader
        self._usage = UsageStore(link, self._ledger.publisher, reader)
        self._accountant = Accountant(link, self._usage, assignments, leadership, snapshot, clock)
        self._batch_sums = BatchSums(link, self._usage, reader, leadership)
        server_clock = ServerClock(link, clock)
        self._sweeper = TaskSweeper(
            link, self._ledger, deployments, leadership, clock, server_clock
        )
        caller = Caller(addresses.parse_networks(settings.callback_allowed_networks))
        self._callbacks = Dispatcher(
            link, leadership, clock, server_clock, caller, settings.callback_secret_file
        )
        self._kept_schedules = KvMirror(link, streams.schedules_bucket)
        submitter = Submitter(link, self._ledger, deployments, clock)
        self._schedules = Schedules(self._kept_schedules, submitter, clock)
        self._firing = Firing(self._kept_schedules, submitter, leadership, clock)

    def serve(self, server: grpc.aio.Server) -> None:
        """Adds the services of the duties to a server that has not started."""
        schedules = ScheduleService(self._schedules)
        schedule_pb2_grpc.add_ScheduleServiceServicer_to_server(schedules, server)
        usage = UsageService(self._usage, self._clock)
        usage_pb2_grpc.add_UsageServiceServicer_to_server(usage, server)

    def work(self) -> dict[str, Coroutine[Any, Any, None]]:
        """The background work of the duties, which goes on for ever, by name."""
        return {
            "kept_schedules": self._kept_schedules.run(),
            "schedules": self._firing.run(),
            "task_sweeper": self._sweeper.run(),
            "usage": self._accountant.run(),
            "usage_notes": self._batch_sums.run(),
            "callbacks": self._callbacks.run(),
        }
