"""A process's one connection to NATS: reconnects for ever, and says when it could not.

nats-py gives up for good after some errors (state CLOSED, no reconnect). That is reported as
NatsLinkClosedError to whoever waits in `closed()`, so that the process ends and is started again
rather than living on deaf.
"""

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import nats
import structlog

from services.wire.data_lane import DataLaneClient
from services.wire.replicated import ReplicatedJetStream

log = structlog.get_logger()

T = TypeVar("T")

RECONNECT_WAIT_S = 0.25
PING_INTERVAL_S = 5

ConnectHook = Callable[[], Coroutine[Any, Any, None]]


class NatsLinkClosedError(ConnectionError):
    """The connection is closed and will not come back by itself."""


class NatsLink:
    """One supervised connection to NATS with its JetStream context.

    Attributes:
        client: the nats-py client.
        jetstream: its JetStream context.
        connections: how often the connection has come up; rises by one with each.
    """

    def __init__(
        self,
        name: str,
        url: str,
        credentials_file: Path | None = None,
        stream_replicas: int = 1,
    ) -> None:
        """Prepares a connection.

        Args:
            name: shown in nats-server's connection list.
            url: `nats://host:port`, several separated by commas.
            credentials_file: a file with `user:password`; None for a server without users.
            stream_replicas: servers that keep each stream, 1 to 5.
        """
        self._name = name
        self._urls = url.split(",")
        self._credentials_file = credentials_file
        self._hooks: list[ConnectHook] = []
        self._connected_now = asyncio.Event()
        self._ready = asyncio.Event()
        self._lost = asyncio.Event()
        self._last_reason = ""
        self._closed_error: asyncio.Future[None] | None = None
        self._stopping = False
        self.connections = 0
        self.client = DataLaneClient()
        self.jetstream = ReplicatedJetStream(self.client, stream_replicas)

    @property
    def connected(self) -> bool:
        """Whether the connection is up and every hook has run since it came up."""
        return self._ready.is_set() and bool(self.client.is_connected)

    def same_connection(self, connections: int) -> bool:
        """Whether the connection is up and is the one that `connections` counted."""
        return self.connected and self.connections == connections

    def on_connected(self, hook: ConnectHook) -> None:
        """Has `hook` run after the first connection and after every reconnection.

        Hooks run in order; one that raises is logged and all are tried again.
        """
        self._hooks.append(hook)

    async def unless_lost(self, work: Coroutine[Any, Any, T]) -> T:
        """Awaits `work`, but no longer than the connection lasts.

        What waits for an answer that was lost with the connection would otherwise wait for its
        whole timeout, long after the connection is back.

        Raises:
            nats.errors.ConnectionReconnectingError: if the connection is lost first; whether the
                work was done is unknown.
        """
        task = asyncio.ensure_future(work)
        lost = asyncio.ensure_future(self._lost.wait())
        try:
            await asyncio.wait({task, lost}, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return task.result()
            raise nats.errors.ConnectionReconnectingError
        finally:
            task.cancel()
            lost.cancel()

    async def run(self, stopping: asyncio.Event) -> None:
        """Connects and keeps the hooks' work done until `stopping` is set.

        Raises:
            NatsLinkClosedError: if the connection was closed for good.
        """
        self._closed_error = asyncio.get_running_loop().create_future()
        stop = asyncio.create_task(stopping.wait())
        worker = asyncio.create_task(self._connect_and_prepare())
        try:
            watched: set[asyncio.Future[Any]] = {stop, worker, self._closed_error}
            await asyncio.wait(watched, return_when=asyncio.FIRST_COMPLETED)
            if worker.done():
                worker.result()
            if self._closed_error.done():
                self._closed_error.result()
        finally:
            for task in (stop, worker):
                task.cancel()
            await asyncio.gather(stop, worker, return_exceptions=True)

    async def close(self) -> None:
        """Flushes what was published and closes the connection."""
        self._stopping = True
        if self.client.is_connected:
            try:
                await self.client.flush(timeout=2)
            except (nats.errors.Error, TimeoutError, OSError) as error:
                log.warning("nats.flush_failed", error=str(error))
        if not self.client.is_closed:
            await self.client.close()

    async def _connect_and_prepare(self) -> None:
        await self.client.connect(
            servers=self._urls,
            name=self._name,
            max_reconnect_attempts=-1,
            reconnect_time_wait=RECONNECT_WAIT_S,
            connect_timeout=2,
            ping_interval=PING_INTERVAL_S,
            max_outstanding_pings=2,
            # A publish while disconnected must fail at once: buffered, it would be stored after
            # the reconnect as a ghost of a request whose caller has gone.
            pending_size=0,
            # Subjects are built from checked names only.
            skip_subject_validation=True,
            error_cb=self._on_error,
            disconnected_cb=self._on_disconnected,
            reconnected_cb=self._on_reconnected,
            closed_cb=self._on_closed,
            **self._credentials(),
        )
        self._lost.clear()
        self._connected_now.set()
        while True:
            await self._connected_now.wait()
            self._connected_now.clear()
            await self._run_hooks()

    async def _run_hooks(self) -> None:
        while self.client.is_connected and not self._connected_now.is_set():
            try:
                for hook in self._hooks:
                    await self.unless_lost(hook())
            except (nats.errors.Error, TimeoutError, OSError) as error:
                log.warning("nats.prepare_failed", error=str(error) or type(error).__name__)
                await asyncio.sleep(RECONNECT_WAIT_S)
            else:
                self.connections += 1
                self._ready.set()
                self._last_reason = ""
                log.info("nats.connected", server=self._urls[0].rsplit("@", 1)[-1])
                return

    def _credentials(self) -> dict[str, str]:
        if self._credentials_file is None:
            return {}
        user, _, password = self._credentials_file.read_text().strip().partition(":")
        return {"user": user, "password": password}

    async def _on_error(self, error: Exception) -> None:
        reason = str(error) or type(error).__name__
        # Each attempt to reconnect fails alike, four times a second.
        if reason != self._last_reason:
            log.warning("nats.error", error=reason)
        self._last_reason = reason

    async def _on_disconnected(self) -> None:
        self._lost.set()
        self._ready.clear()
        if not self._stopping:
            log.warning("nats.disconnected")

    async def _on_reconnected(self) -> None:
        self._lost.clear()
        self._connected_now.set()

    async def _on_closed(self) -> None:
        self._ready.clear()
        if self._closed_error and not self._closed_error.done() and not self._stopping:
            reason = self.client.last_error or "no reason given"
            self._closed_error.set_exception(
                NatsLinkClosedError(f"NATS closed the connection for good: {reason}")
            )
