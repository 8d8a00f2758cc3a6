"""Three real nats-servers that keep each other's streams."""

from pathlib import Path
from types import TracebackType
from typing import Self

from tests.support.free_port import free_address
from tests.support.nats_server import NatsServer

SERVERS = 3


class NatsCluster:
    """A cluster of nats-servers, any of which can be killed and started again.

    Attributes:
        servers: all of them.
    """

    def __init__(self, directory: Path) -> None:
        """Prepares the servers.

        Args:
            directory: for the folder of each.
        """
        addresses = [free_address() for _ in range(SERVERS)]
        routes = ", ".join(f'"nats://{address}"' for address in addresses)
        self.servers = [
            NatsServer(
                directory / f"nats-{number}",
                cluster=f'server_name: "nats-{number}"\ncluster {{ name: "test", '
                f'listen: "{address}", routes: [ {routes} ] }}\n',
            )
            for number, address in enumerate(addresses)
        ]

    @property
    def url(self) -> str:
        """Addresses of all of them, for `--nats-url`."""
        return ",".join(server.url for server in self.servers)

    def __enter__(self) -> Self:
        try:
            for server in self.servers:
                server.start()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop()

    def _stop(self) -> None:
        for server in self.servers:
            server.stop()
