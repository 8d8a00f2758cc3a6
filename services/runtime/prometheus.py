"""What a service tells Prometheus, over HTTP from a thread of its own.

Both formats are served: OpenMetrics to whoever asks for it, as Prometheus does, and text else.
"""

import asyncio
from collections.abc import Callable
from typing import TypeVar

from prometheus_client import CollectorRegistry, ProcessCollector, start_http_server
from prometheus_client.registry import Collector

from services.runtime import ports

T = TypeVar("T")

LOOK_TIMEOUT_S = 5.0
"""How long a scrape waits for the event loop; Prometheus gives up after 10 s."""


class Exposed:
    """Metrics that are being served, or none.

    Attributes:
        address: where, as host:port; empty if nowhere.
    """

    def __init__(self, address: str = "", end: Callable[[], None] | None = None) -> None:
        """Use `expose`."""
        self.address = address
        self._end = end

    def listening(self, name: str) -> dict[str, str]:
        """The address under a name, for `process.announce`; empty if there is none."""
        return {name: self.address} if self.address else {}

    async def stop(self) -> None:
        """Listens no more."""
        if self._end is not None:
            await asyncio.to_thread(self._end)
            self._end = None


def expose(address: str | None, collector: Collector) -> Exposed:
    """Serves a collector's metrics, and those of this process.

    Args:
        address: as host:port; port 0: the kernel chooses. None: they are not served.
        collector: called in another thread, at each scrape.

    Raises:
        ports.AddressError: if the address cannot be listened on.
    """
    if address is None:
        return Exposed()
    ports.check_free(address)
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    registry.register(collector)
    host, port = ports.split(address)
    server, thread = start_http_server(port, host, registry)

    def end() -> None:
        server.shutdown()
        server.server_close()
        thread.join()

    return Exposed(f"{address.rpartition(':')[0]}:{server.server_port}", end)


def on_loop(look: Callable[[], T]) -> Callable[[], T]:
    """A function for other threads that calls `look` on the event loop of this one.

    What it returns must change no more. It raises TimeoutError if the loop does not come to it
    within LOOK_TIMEOUT_S.
    """
    loop = asyncio.get_running_loop()

    async def looked() -> T:
        return look()

    return lambda: asyncio.run_coroutine_threadsafe(looked(), loop).result(LOOK_TIMEOUT_S)
