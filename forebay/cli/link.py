"""A command's connection to one service of the mesh."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc.aio

from forebay import addresses
from forebay.cli.failure import raise_for
from services.wire.channels import open_channel

CALL_TIMEOUT_S = 15.0


@dataclass(frozen=True, slots=True)
class Where:
    """Where the mesh is, as far as the command line says."""

    router: str | None = None
    autoscaler: str | None = None
    metrics: str | None = None
    state_dir: Path | None = None

    def address(self, service: str) -> str:
        """Address of a service."""
        return addresses.resolve(service, getattr(self, service), self.state_dir)


@dataclass(frozen=True, slots=True)
class Link:
    """A channel to a service, and how its failures are told."""

    service: str
    address: str
    channel: grpc.aio.Channel

    async def call(self, method: Any, request: Any, timeout_s: float = CALL_TIMEOUT_S) -> Any:
        """Calls a unary method.

        Raises:
            CliError: if the call fails.
        """
        try:
            return await method(request, timeout=timeout_s)
        except grpc.aio.AioRpcError as error:
            raise_for(error, self.service, self.address)


@asynccontextmanager
async def link_to(service: str, where: Where) -> AsyncIterator[Link]:
    """Opens a link to `addresses.ROUTER`, `AUTOSCALER` or `METRICS`."""
    address = where.address(service)
    async with open_channel(address) as channel:
        yield Link(service, address, channel)
