"""The local mesh's nats-server: its binary, its configuration, and credentials of its own."""

import os
import secrets
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from services.wire.limits import MAX_NATS_PAYLOAD_BYTES

USER = "forebay"
MAX_PENDING_BYTES = 256 * 1024 * 1024
MAX_MEMORY_STORE_BYTES = 4 * 1024**3


@dataclass(frozen=True, slots=True)
class NatsFiles:
    """What nats-server and the mesh's processes read.

    Attributes:
        config: nats-server's configuration.
        credentials: `user:password`, for `--nats-credentials-file`.
    """

    config: Path
    credentials: Path


def find_binary() -> Path | None:
    """The nats-server beside this Python, else on PATH; None if there is none."""
    beside = Path(sys.executable).with_name("nats-server")
    if os.access(beside, os.X_OK):
        return beside
    found = shutil.which("nats-server")
    return Path(found) if found else None


def write_files(directory: Path, port: int) -> NatsFiles:
    """Writes configuration and credentials, readable by their owner only.

    Args:
        directory: for these files and JetStream's store.
        port: to listen on, on loopback.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    directory.chmod(0o700)
    files = NatsFiles(directory / "nats-server.conf", directory / "credentials")
    password = secrets.token_hex(32)
    _write_private(files.credentials, f"{USER}:{password}\n")
    _write_private(
        files.config,
        f'''listen: "127.0.0.1:{port}"
server_name: "forebay-local"
max_payload: {MAX_NATS_PAYLOAD_BYTES}
max_pending: {MAX_PENDING_BYTES}
authorization {{
  users = [{{ user: "{USER}", password: "{password}" }}]
}}
jetstream {{
  store_dir: "{_quoted(directory / "jetstream")}"
  # What is acknowledged is on disk, also after a power failure. Requests are in memory: they pay
  # nothing for it.
  sync_interval: always
  max_memory_store: {MAX_MEMORY_STORE_BYTES}
}}
''',
    )
    return files


def _quoted(path: Path) -> str:
    return str(path).replace("\\", "\\\\").replace('"', '\\"')


def _write_private(path: Path, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        os.fchmod(descriptor, 0o600)
        file.write(text)
