"""Connections of this process's functions to routers: one for each address, made when needed."""

import asyncio
import atexit
import threading
import weakref

from forebay import addresses
from forebay.aio import AsyncClient
from forebay.client import Client

MAX_CLIENTS = 8
"""Routers that one process talks to at a time; whoever was first is closed."""

_lock = threading.Lock()
_clients: dict[str, Client] = {}
_async_clients: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, AsyncClient]] = (
    weakref.WeakKeyDictionary()
)


def client_of(router: str | None) -> Client:
    """The connection of this process to a router.

    Args:
        router: its address; None means FOREBAY_ROUTER, else the local mesh.
    """
    address = addresses.resolve(addresses.ROUTER, router)
    with _lock:
        client = _clients.get(address)
        if client is None:
            if len(_clients) >= MAX_CLIENTS:
                _clients.pop(next(iter(_clients))).close()
            client = _clients[address] = Client(address)
        return client


def async_client_of(router: str | None) -> AsyncClient:
    """The connection of the running event loop to a router; `aclose` closes it."""
    address = addresses.resolve(addresses.ROUTER, router)
    clients = _async_clients.setdefault(asyncio.get_running_loop(), {})
    if address not in clients:
        clients[address] = AsyncClient(address)
    return clients[address]


def close() -> None:
    """Closes the connections of this process that no event loop owns."""
    with _lock:
        while _clients:
            _clients.popitem()[1].close()


async def aclose() -> None:
    """Closes those of the running event loop."""
    for client in _async_clients.pop(asyncio.get_running_loop(), {}).values():
        await client.close()


atexit.register(close)
