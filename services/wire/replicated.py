"""Streams that several nats-servers keep: every stream, bucket and store of a mesh alike.

A fleet runs a cluster of three nats-servers and keeps each stream on all of them, so that the loss
of one loses nothing and stops nothing for long. How many is one setting of the mesh; what creates
streams need not know it.
"""

from typing import Any

import nats.errors
import nats.js.errors
from nats.aio.client import Client
from nats.js import JetStreamContext
from nats.js.api import StreamConfig, StreamInfo

MAX_STREAM_REPLICAS = 5
"""More are refused by nats-server."""

_TOO_FEW_SERVERS = (10005, 10074)
"""JetStream's error codes for a cluster without enough servers, and for a server without one."""


class TooFewServersError(nats.errors.Error):  # type: ignore[misc]
    """Streams cannot be kept as often as they should be."""


class ReplicatedJetStream(JetStreamContext):  # type: ignore[misc]
    """A JetStream context whose streams are kept on several servers.

    Attributes:
        stream_replicas: on how many, 1 to 5. A stream that is on more stays there.
    """

    def __init__(self, client: Client, stream_replicas: int) -> None:
        super().__init__(client)
        self.stream_replicas = stream_replicas

    async def add_stream(self, config: StreamConfig | None = None, **params: Any) -> StreamInfo:
        """Creates a stream.

        Raises:
            TooFewServersError: if there are not as many servers.
            nats.js.errors.APIError: if the server refuses it.
        """
        wanted = self._replicated((config or StreamConfig()).evolve(**params))
        try:
            return await super().add_stream(wanted)
        except nats.js.errors.APIError as error:
            raise self._explained(error) from error

    async def update_stream(self, config: StreamConfig | None = None, **params: Any) -> StreamInfo:
        """Changes a stream.

        Raises:
            TooFewServersError: if there are not as many servers.
            nats.js.errors.APIError: if the server refuses it.
        """
        wanted = self._replicated((config or StreamConfig()).evolve(**params))
        try:
            return await super().update_stream(wanted)
        except nats.js.errors.APIError as error:
            raise self._explained(error) from error

    async def replicate(self, stream: str) -> None:
        """Has a stream that is on fewer servers kept on as many as it should be."""
        if self.stream_replicas == 1:
            return
        there = (await self.stream_info(stream)).config
        if (there.num_replicas or 1) < self.stream_replicas:
            await self.update_stream(there)

    def _replicated(self, config: StreamConfig) -> StreamConfig:
        return config.evolve(num_replicas=max(config.num_replicas or 1, self.stream_replicas))

    def _explained(self, error: nats.js.errors.APIError) -> nats.errors.Error:
        if error.err_code not in _TOO_FEW_SERVERS:
            return error
        return TooFewServersError(
            f"streams cannot be kept on {self.stream_replicas} servers (stream_replicas): "
            f"{error.description}. Start as many nats-servers in one cluster, or set "
            "stream_replicas to what there is, in every process of the mesh"
        )
