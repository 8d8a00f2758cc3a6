"""Signs messages as https://www.standardwebhooks.com has it."""

import binascii
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from standardwebhooks import Webhook

from services.autoscaler.callbacks.message import Message

_PREFIX = "whsec_"
MAX_SECRETS = 5


class SecretError(Exception):
    """There is no secret that can sign; the text says what to do."""


class Signer:
    """Signs with every secret there is, so that a receiver may change from one to the next."""

    def __init__(self, secrets: Sequence[str], where: str) -> None:
        """Takes the secrets.

        Args:
            secrets: each `whsec_` and 24 to 64 bytes in base64.
            where: what they were read from, for errors.

        Raises:
            SecretError: if there is none, or one is malformed.
        """
        if not 1 <= len(secrets) <= MAX_SECRETS:
            raise SecretError(
                f"{where}: it has {len(secrets)} secrets; it must hold 1 to {MAX_SECRETS}, one a "
                f"line. {_HOW}"
            )
        self._webhooks = [_webhook(secret, where) for secret in secrets]

    def headers(self, message: Message, now_s: float) -> dict[str, str]:
        """The headers of one attempt.

        Args:
            message: what is sent.
            now_s: the time, in seconds since the epoch.
        """
        now = datetime.fromtimestamp(now_s, UTC)
        body = message.body.decode()
        return {
            "content-type": "application/json",
            "user-agent": "forebay",
            "webhook-id": message.id,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": " ".join(
                webhook.sign(message.id, now, body) for webhook in self._webhooks
            ),
        }


def read(file: Path) -> Signer:
    """The signer with the secrets of a file, one a line.

    Raises:
        SecretError: if it cannot be read, or a secret is malformed.
    """
    where = f"callback_secret_file = {file}"
    try:
        text = file.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise SecretError(f"{where}: cannot be read: {error}") from error
    return Signer(text.split(), where)


_HOW = "Make one with: echo whsec_$(head -c 32 /dev/urandom | base64)"


def _webhook(secret: str, where: str) -> Webhook:
    try:
        key = binascii.a2b_base64(secret.removeprefix(_PREFIX), strict_mode=True)
    except (binascii.Error, ValueError):
        key = b""
    if not secret.startswith(_PREFIX) or not 24 <= len(key) <= 64:
        raise SecretError(f"{where}: each secret is {_PREFIX} and 24 to 64 bytes in base64. {_HOW}")
    return Webhook(key)
