"""Tells a server of the operator's what machines are missing and which may go.

A POST of JSON, signed as https://www.standardwebhooks.com has it. Its `data` is the NodeDemand in
proto3 JSON with the name of the mesh added. A message is sent again with the same `webhook-id` when
the server does not answer, or answers 429 or 5xx.
"""

import asyncio
import binascii
import json
import secrets
from datetime import UTC, datetime
from pathlib import Path

import aiohttp
import stamina
import structlog
from google.protobuf.json_format import MessageToDict
from standardwebhooks import Webhook

from forebay.v1.autoscaler_pb2 import NodeDemand
from services.autoscaler.provider.protocol import ProviderError
from services.runtime.clock import Clock

log = structlog.get_logger()

TYPE = "node.demand"
REPEAT_S = 60.0
RESPONSE_TIMEOUT_S = 10.0
ATTEMPTS = 4
ATTEMPTS_TIMEOUT_S = 30.0
FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 5.0

_PREFIX = "whsec_"
_TOO_MANY_REQUESTS = 429
_SERVER_ERRORS = 500


class _TryAgainError(Exception):
    """The server may answer better next time."""


class WebhookProvider:
    """Sends each demand to one address."""

    releases = True
    repeat_s = REPEAT_S
    note = ""
    busy = False

    def __init__(self, url: str, secret_file: Path, mesh: str, clock: Clock) -> None:
        """Sends nothing yet.

        Args:
            url: where to.
            secret_file: has the secret that signs; read at every sending.
            mesh: name of the mesh, which is told.
            clock: dates the messages.
        """
        self._url = url
        self._secret_file = secret_file
        self._mesh = mesh
        self._clock = clock

    async def apply(self, demand: NodeDemand, reporting: frozenset[str]) -> None:
        """Sends a demand.

        Raises:
            ProviderError: if it was not taken, or there is no usable secret.
        """
        signer = _signer(await asyncio.to_thread(_read, self._secret_file), self._secret_file)
        message_id = f"msg_{secrets.token_hex(16)}"
        body = self._body(demand)
        timeout = aiohttp.ClientTimeout(total=RESPONSE_TIMEOUT_S)
        try:
            async with aiohttp.ClientSession(timeout=timeout) as session:
                async for attempt in stamina.retry_context(
                    on=(_TryAgainError, aiohttp.ClientConnectionError, TimeoutError),
                    attempts=ATTEMPTS,
                    timeout=ATTEMPTS_TIMEOUT_S,
                    wait_initial=FIRST_PAUSE_S,
                    wait_max=LONGEST_PAUSE_S,
                ):
                    with attempt:
                        await self._post(session, signer, message_id, body)
        except (_TryAgainError, aiohttp.ClientError, TimeoutError) as error:
            said = str(error) or f"no answer within {RESPONSE_TIMEOUT_S:g} s"
            raise ProviderError(f"the node provider's webhook was not taken: {said}") from error
        log.info("provider.webhook_sent", message=message_id)

    async def _post(
        self, session: aiohttp.ClientSession, signer: Webhook, message_id: str, body: str
    ) -> None:
        now = datetime.fromtimestamp(self._clock.wall_s(), UTC)
        headers = {
            "content-type": "application/json",
            "webhook-id": message_id,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": signer.sign(message_id, now, body),
        }
        async with session.post(
            self._url, data=body.encode(), headers=headers, allow_redirects=False
        ) as response:
            status = response.status
        if status == _TOO_MANY_REQUESTS or status >= _SERVER_ERRORS:
            raise _TryAgainError(f"the server answered {status}")
        if not response.ok or status >= 300:
            raise ProviderError(
                f"the node provider's webhook was refused: the server answered {status}; check "
                "webhook_url and the secret"
            )

    def _body(self, demand: NodeDemand) -> str:
        return json.dumps(
            {
                "type": TYPE,
                "timestamp": datetime.fromtimestamp(self._clock.wall_s(), UTC).isoformat(),
                "data": {"mesh": self._mesh, **MessageToDict(demand)},
            }
        )


def _read(file: Path) -> str:
    try:
        return file.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ProviderError(f"webhook_secret_file = {file}: cannot be read: {error}") from error


def _signer(secret: str, file: Path) -> Webhook:
    try:
        key = binascii.a2b_base64(secret.removeprefix(_PREFIX), strict_mode=True)
    except (binascii.Error, ValueError):
        key = b""
    if not secret.startswith(_PREFIX) or not 24 <= len(key) <= 64:
        raise ProviderError(
            f"webhook_secret_file = {file}: it must hold {_PREFIX} followed by 24 to 64 bytes in "
            "base64; make one with: echo whsec_$(head -c 32 /dev/urandom | base64)"
        )
    return Webhook(key)
