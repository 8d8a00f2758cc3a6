"""The container engine's API: every call has a time limit, every failure is a sentence.

aiodocker speaks it. What it has no way for (statistics without the second that the engine else
waits between two samples; logs and events as bytes, so that a reader who is slow holds up the
engine and not this process' memory) goes over the same session.
"""

import asyncio
import contextlib
import json
import math
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from typing import Any

import aiodocker
import aiohttp

from services.launcher import reasons
from services.launcher.refusal import Kind, RefusedError

_UNREACHABLE = 900
"""What aiodocker gives for a status if there was no answer."""
_NOT_FOUND = 404
_NOT_MODIFIED = 304
_CONFLICT = 409

STOP_MARGIN_S = 30.0
PULL_SILENCE_S = 300.0
"""Longest time without a word during a pull. The engine speaks all the time while it unpacks."""
MAX_LINE_BYTES = 1024 * 1024
READ_BYTES = 64 * 1024

Json = dict[str, Any]


class Engine:
    """A container engine behind a Unix socket. Use it within `async with`."""

    def __init__(self, url: str, timeout_s: float) -> None:
        """An engine that need not be there yet.

        Args:
            url: `unix:///path`.
            timeout_s: how long a call may take.
        """
        self.url = url
        self._timeout_s = timeout_s
        self._session: aiohttp.ClientSession
        self._docker: aiodocker.Docker

    async def __aenter__(self) -> "Engine":
        connector = aiohttp.UnixConnector(self.url.removeprefix("unix://"), limit=0)
        self._session = aiohttp.ClientSession(
            connector=connector,
            timeout=aiohttp.ClientTimeout(sock_connect=self._timeout_s),
            read_bufsize=MAX_LINE_BYTES,
        )
        self._docker = aiodocker.Docker(
            "unix://localhost", session=self._session, connector=connector
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._docker.close()
        await self._session.close()

    async def version(self, timeout_s: float | None = None) -> str:
        """Its version, such as `28.3.1`."""
        async with self._limits("asking for its version", timeout_s):
            return str((await self._docker.version())["Version"])
        raise AssertionError

    async def info(self) -> Json:
        """What it says of itself and its machine."""
        async with self._limits("asking for its state"):
            return dict(await self._docker.system.info())
        raise AssertionError

    async def list_containers(self, labels: Mapping[str, str]) -> list[Json]:
        """The containers with all of some labels, running or not."""
        async with self._limits("listing containers"):
            query = {"all": "true", "filters": _filters(labels)}
            async with self._open("GET", "containers/json", query) as response:
                return list(await response.json())
        raise AssertionError

    async def inspect(self, name: str) -> Json | None:
        """A container by name or id; None if there is none."""
        async with self._limits(f"looking at {name}", absent_is_none=True):
            return await self._docker.containers.container(name).show()
        return None

    async def create(self, name: str, config: Json) -> str:
        """Makes a container and returns its id."""
        async with self._limits(f"making {name}"):
            return (await self._docker.containers.create(config, name=name)).id
        raise AssertionError

    async def start(self, container_id: str, name: str) -> None:
        """Starts a container."""
        async with self._limits(f"starting {name}"):
            await self._docker.containers.container(container_id).start()

    async def stop(self, container_id: str, name: str, grace_s: float) -> None:
        """Ends a container by SIGTERM, after some time by SIGKILL; fine if it has ended."""
        limit_s = grace_s + STOP_MARGIN_S
        async with self._limits(f"stopping {name}", limit_s, absent_is_none=True):
            await self._docker.containers.container(container_id).stop(t=math.ceil(grace_s))

    async def remove(self, container_id: str, name: str) -> None:
        """Kills and removes a container, with the volumes that are its own; fine if it is gone."""
        limit_s = self._timeout_s + STOP_MARGIN_S
        async with self._limits(f"removing {name}", limit_s, absent_is_none=True):
            try:
                await self._docker.containers.container(container_id).delete(force=True, v=True)
            except aiodocker.DockerError as error:
                # Whoever removes it already will have done so.
                if error.status != _CONFLICT or "in progress" not in error.message:
                    raise

    async def wait(self, container_id: str) -> Json:
        """Waits until a container has ended; returns it as `inspect` does."""
        async with self._limits("waiting for its end"):
            container = self._docker.containers.container(container_id)
            await container.wait()
            return await container.show()
        raise AssertionError

    async def stats(self, container_id: str) -> Json:
        """One sample of what a container uses, at once."""
        async with self._limits("measuring"):
            query = {"stream": "false", "one-shot": "true"}
            async with self._open("GET", f"containers/{container_id}/stats", query) as response:
                return dict(await response.json())
        raise AssertionError

    async def processes(self, container_id: str) -> list[int]:
        """Ids of a container's processes, on the engine's machine."""
        async with self._limits("listing processes"):
            found = await self._docker.containers.container(container_id).top(ps_args="-eo pid")
            return [int(row[0]) for row in found.get("Processes") or ()]
        raise AssertionError

    async def image(self, name: str) -> Json | None:
        """An image by name or id; None if it is not there."""
        async with self._limits(f"looking for the image {name}", absent_is_none=True):
            return await self._docker.images.inspect(name)
        return None

    async def pull(self, name: str) -> AsyncGenerator[Json, None]:
        """Pulls an image; yields what the engine says of its progress.

        Args:
            name: in its long form, with a tag or a digest.
        """
        doing = f"pulling {name}"
        name, at, digest = name.partition("@")
        query = {"fromImage": name + at + digest} if at else {}
        if not at:
            query["fromImage"], _, query["tag"] = name.rpartition(":")
        async with self._limits(doing, endless=True):
            async with self._open("POST", "images/create", query, PULL_SILENCE_S) as response:
                while True:
                    try:
                        async with asyncio.timeout(PULL_SILENCE_S):
                            line = await response.content.readline()
                    except TimeoutError:
                        raise reasons.of_silence(doing, self.url, PULL_SILENCE_S) from None
                    if not line:
                        return
                    step = json.loads(line)
                    if "error" in step:
                        raise aiodocker.DockerError(0, str(step["error"]))
                    yield step

    async def network(self, name: str) -> Json | None:
        """A network by name; None if there is none."""
        async with self._limits(f"looking for the network {name}"):
            found = await self._docker.networks.list(filters={"name": name})
            # The filter takes parts of names.
            return next((dict(one) for one in found if one["Name"] == name), None)
        return None

    async def create_network(self, config: Json) -> None:
        """Makes a network."""
        async with self._limits(f"making the network {config['Name']}"):
            await self._docker.networks.create(config)

    async def events(self, labels: Mapping[str, str]) -> AsyncGenerator[Json, None]:
        """What happens to containers with some labels, from now on; ends with the connection.

        The first item is empty and says that it listens.
        """
        query = {"filters": _filters(labels, type=["container"])}
        async with self._limits("listening", endless=True):
            async with self._open("GET", "events", query) as response:
                yield {}
                async for line in response.content:
                    if line.strip():
                        yield json.loads(line)

    async def log(self, container_id: str, since: str) -> AsyncGenerator[bytes, None]:
        """What a container writes, as the engine frames it, with its time before each line.

        Args:
            container_id: of the container.
            since: seconds since the epoch, with a fraction; empty for all that is kept.
        """
        query = {"follow": "true", "stdout": "true", "stderr": "true", "timestamps": "true"}
        if since:
            query["since"] = since
        async with self._limits("reading its log", endless=True):
            async with self._open("GET", f"containers/{container_id}/logs", query) as response:
                while chunk := await response.content.read(READ_BYTES):
                    yield chunk

    @contextlib.asynccontextmanager
    async def _open(
        self, method: str, path: str, query: Mapping[str, str], timeout_s: float | None = None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        timeout_s = timeout_s or self._timeout_s
        async with asyncio.timeout(timeout_s):
            if self._docker.api_version == "auto":
                # Negotiates, as aiodocker does with every call of its own.
                await self._docker.version()
            url = f"http://docker/{self._docker.api_version}/{path}"
            response = await self._session.request(method, url, params=query)
        try:
            if response.status >= 400:
                async with asyncio.timeout(timeout_s):
                    raise aiodocker.DockerError(response.status, _message(await response.text()))
            yield response
        finally:
            # An endless stream would else be read to its end.
            response.close()

    @contextlib.asynccontextmanager
    async def _limits(
        self,
        doing: str,
        timeout_s: float | None = None,
        *,
        endless: bool = False,
        absent_is_none: bool = False,
    ) -> AsyncIterator[None]:
        """Limits the time of a call and says what its failure means.

        Raises:
            RefusedError: with what it means. Not if there is no such thing and that is fine.
        """
        limit_s = None if endless else timeout_s or self._timeout_s
        try:
            async with asyncio.timeout(limit_s):
                yield
        except TimeoutError:
            raise reasons.of_silence(doing, self.url, limit_s or self._timeout_s) from None
        except aiodocker.DockerError as error:
            if absent_is_none and error.status in (_NOT_FOUND, _NOT_MODIFIED):
                return
            if error.status == _UNREACHABLE:
                raise reasons.of_absence(doing, self.url, error.message) from error
            raise reasons.of_engine(doing, error.status, error.message) from error
        except (aiohttp.ClientError, OSError) as error:
            words = str(error) or type(error).__name__
            raise reasons.of_absence(doing, self.url, words) from error
        except (ValueError, KeyError, TypeError) as error:
            raise RefusedError(
                Kind.INTERNAL,
                f"{doing}: what answers at {self.url} is no container engine that speaks Docker's "
                f"API: {type(error).__name__}",
            ) from error


def _filters(labels: Mapping[str, str], **others: list[str]) -> str:
    return json.dumps({"label": [f"{key}={value}" for key, value in labels.items()], **others})


def _message(body: str) -> str:
    try:
        return str(json.loads(body)["message"])
    except (ValueError, KeyError, TypeError):
        return body
