"""Ports that stay the mesh's while its processes come and go."""

import socket
from types import TracebackType
from typing import Self

from services.runtime.ports import AddressError, split


class ReservedPorts:
    """Holds a bound socket for each address, so that the kernel gives its port to nobody else.

    A process of the mesh can listen on it all the same: on Linux, sockets with SO_REUSEADDR may
    share an address as long as at most one of them listens.
    """

    def __init__(self) -> None:
        self._sockets: list[socket.socket] = []

    def reserve(self, address: str) -> str:
        """Reserves an address; for port 0 the kernel chooses. Returns it with its port.

        Raises:
            AddressError: if something listens there, or the address is not this machine's.
        """
        host, port = split(address)
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        held = socket.socket(family, socket.SOCK_STREAM)
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            held.bind((host, port))
        except OSError as error:
            held.close()
            raise AddressError(
                f"cannot listen on {address}: {error.strerror}. Stop what uses the port "
                f"(`ss -ltnp 'sport = :{port}'` shows it) or choose another address"
            ) from error
        self._sockets.append(held)
        return (
            f"[{host}]:{held.getsockname()[1]}"
            if ":" in host
            else (f"{host}:{held.getsockname()[1]}")
        )

    def close(self) -> None:
        """Gives every port back."""
        for held in self._sockets:
            held.close()
        self._sockets.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
