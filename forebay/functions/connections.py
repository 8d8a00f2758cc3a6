"""What this process's functions talk through: clients by address and an event loop, when needed."""

import asyncio
import atexit
import threading
import weakref

from forebay import addresses
from forebay.aio import AsyncClient
from forebay.client import Client
from forebay.task_client.portal import Portal

MAX_CLIENTS = 8
"""Routers that one process talks to at a time; whoever was first is closed."""

_lock = threading.Lock()
_clients: dict[str, Client] = {}
_portal: Portal | None = None
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


def portal() -> Portal:
    """The event loop of this process's functions, for what has no client.

    One that stays: the next loop would get what grpc still had to say to one that is closed.
    """
    global _portal
    with _lock:
        if _portal is None or _portal.is_closed:
            _portal = Portal("forebay-functions")
        return _portal


def async_client_of(router: str | None) -> AsyncClient:
    """The connection of the running event loop to a router; `aclose` closes it."""
    address = addresses.resolve(addresses.ROUTER, router)
    clients = _async_clients.setdefault(asyncio.get_running_loop(), {})
    if address not in clients:
        clients[address] = AsyncClient(address)
    return clients[address]


def close() -> None:
    """Closes what no event loop of the caller's owns; it is made anew when needed."""
    with _lock:
        while _clients:
            _clients.popitem()[1].close()
        if _portal is not None:
            _portal.close()


async def aclose() -> None:
    """Closes those of the running event loop."""
    for client in _async_clients.pop(asyncio.get_running_loop(), {}).values():
        await client.close()


atexit.register(close)
