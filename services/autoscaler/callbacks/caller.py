"""Makes calls: one POST each, to public addresses or those that the operator allows.

The address is looked at where the connection is made, whatever the name was resolved to before and
will be resolved to next. Redirects are not followed, so that nobody is led elsewhere.
"""

import asyncio
import errno
import socket
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from services.autoscaler.callbacks import addresses, hosts
from services.autoscaler.callbacks.message import Message

TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of one attempt.

    Attributes:
        status: of the receiver's answer; None if there was none.
        problem: what went wrong, if there was none. Without the address, which may hold a token.
    """

    status: int | None
    problem: str = ""


class Caller:
    """An HTTP client for callbacks; a context manager."""

    def __init__(self, allowed: Sequence[addresses.Network], timeout_s: float = TIMEOUT_S) -> None:
        """Calls nobody yet.

        Args:
            allowed: networks that may be called though they are not public.
            timeout_s: of one attempt, from the name to the answer.
        """
        self._allowed = tuple(allowed)
        self._timeout_s = timeout_s
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        """Opens what calls share."""
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                resolver=_Resolver(),
                socket_factory=self._socket,
                # What is called next is not to be where a name led 10 s ago.
                use_dns_cache=False,
                limit=hosts.MAX_RUNNING,
                limit_per_host=hosts.MAX_RUNNING_PER_HOST,
            ),
            # What one receiver sets is not for the next call.
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=self._timeout_s),
            auto_decompress=False,
            trust_env=False,
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Closes it."""
        if self._session is not None:
            await self._session.close()

    async def call(self, message: Message, headers: dict[str, str]) -> Answer:
        """Makes one attempt."""
        assert self._session is not None, "not entered"
        try:
            async with self._session.post(
                message.url, data=message.body, headers=headers, allow_redirects=False
            ) as response:
                # What it says besides is not read.
                return Answer(response.status)
        except TimeoutError:
            return Answer(None, f"no answer within {self._timeout_s:g} s")
        except aiohttp.InvalidURL:
            return Answer(None, "its address is not valid")
        except aiohttp.ClientConnectorError as error:
            return Answer(None, f"cannot connect: {error.strerror or error.os_error}"[:300])
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return Answer(None, str(error)[:300] or type(error).__name__)

    def _socket(self, found: tuple[Any, Any, Any, Any, Any]) -> socket.socket:
        """The socket for an address, as late as can be and for every kind of address.

        Raises:
            AddressRefusedError: if it may not be called.
        """
        family, kind, protocol, _, address = found
        refused = addresses.refusal(str(address[0]), self._allowed)
        if refused:
            raise AddressRefusedError(errno.EACCES, refused)
        return socket.socket(family, kind, protocol)


class AddressRefusedError(OSError):
    """An address that may not be called."""


class _Resolver(AbstractResolver):
    """Resolves names in threads of its own.

    The loop's own are few, and the rest of the process needs them: a name server that does not
    answer holds one for up to half a minute.
    """

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(hosts.MAX_RUNNING, "callback-names")

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        def ask() -> list[Any]:
            return socket.getaddrinfo(
                host, port, family=family, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG
            )

        found = await asyncio.get_running_loop().run_in_executor(self._threads, ask)
        return [
            ResolveResult(
                hostname=host,
                host=str(address[0]),
                port=int(address[1]),
                family=kind,
                proto=protocol,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for kind, _, protocol, _, address in found
        ]

    async def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
