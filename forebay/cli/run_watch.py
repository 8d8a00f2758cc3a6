"""Looks whether the functions that a script waits for can start at all, and ends it if they cannot.

A task waits for as long as its time to live, a day by default: a script whose `on_start` raises
would say nothing until then.
"""

import signal
import threading

import grpc.aio

from forebay import addresses, deploying
from forebay.functions.connections import portal
from services.wire.channels import open_channel
from services.wire.names import deployment_name

_LOOK_S = 1.0


class StartWatch:
    """Interrupts the main thread once a deployment has failed replicas and none that is ready."""

    def __init__(self) -> None:
        self.failure = ""
        """Why the script was interrupted; empty if it was not."""
        self._names: list[str] = []
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def add(self, name: str) -> None:
        """Looks at one deployment more."""
        self._names.append(name)
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="forebay-watch", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Looks no more."""
        self._over.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while not self._over.wait(_LOOK_S):
            self.failure = portal().call(_failure(list(self._names)))
            if self.failure and not self._over.is_set():
                # A real signal, to the thread that waits: nothing else wakes it.
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
                return


async def _failure(names: list[str]) -> str:
    """Why the first deployment that cannot start does not; empty if all can or nobody knows."""
    async with open_channel(addresses.resolve(addresses.AUTOSCALER)) as channel:
        for name in names:
            try:
                found = await deploying.current_deployment(deployment_name(name), channel)
            except grpc.aio.AioRpcError:
                return ""
            status = found.status if found is not None else None
            if status and status.failed_replica_count and not status.ready_replica_count:
                return f"{name} cannot start: {status.message}"
    return ""
