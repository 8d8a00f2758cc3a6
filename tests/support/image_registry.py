"""A registry of images on loopback, from which an engine pulls without TLS: 127.0.0.0/8 is trusted.

It serves one image of a few layers, made here, and can be slow.
"""

import gzip
import hashlib
import io
import json
import tarfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
CONFIG = "application/vnd.docker.container.image.v1+json"
LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


class ImageRegistry:
    """One image, `forebay-test/pulled:1`.

    Attributes:
        delay_s: before each layer is sent.
        requests: what was asked for, in order.
    """

    name = "forebay-test/pulled"

    def __init__(self, *layers: bytes) -> None:
        """An image of some layers.

        Args:
            layers: archives, the lowest first.
        """
        self.delay_s = 0.0
        self.requests: list[str] = []
        packed = [gzip.compress(layer, mtime=0) for layer in layers]
        config = {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Env": ["PATH=/bin"]},
            "rootfs": {"type": "layers", "diff_ids": [_digest(layer) for layer in layers]},
            "history": [{"created_by": "test"} for _ in layers],
        }
        encoded = json.dumps(config).encode()
        self._blobs = {_digest(blob): blob for blob in (encoded, *packed)}
        self._manifest = json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": MANIFEST,
                "config": {
                    "mediaType": CONFIG, "size": len(encoded), "digest": _digest(encoded)
                },
                "layers": [
                    {"mediaType": LAYER, "size": len(blob), "digest": _digest(blob)}
                    for blob in packed
                ],
            }
        ).encode()  # fmt: skip
        self.digest = _digest(self._manifest)
        self.image_id = _digest(encoded)

    def answer(self, path: str) -> tuple[int, str, bytes]:
        """Status, type and body for a path."""
        self.requests.append(path)
        if path == "/v2/":
            return 200, "application/json", b"{}"
        prefix = f"/v2/{self.name}/"
        kind, _, wanted = path.removeprefix(prefix).partition("/")
        if path.startswith(prefix) and kind == "manifests" and wanted in ("1", self.digest):
            return 200, MANIFEST, self._manifest
        if path.startswith(prefix) and kind == "blobs" and wanted in self._blobs:
            time.sleep(self.delay_s)
            return 200, "application/octet-stream", self._blobs[wanted]
        unknown = {"errors": [{"code": "MANIFEST_UNKNOWN", "message": "manifest unknown"}]}
        return 404, "application/json", json.dumps(unknown).encode()


@contextmanager
def image_registry(registry: ImageRegistry) -> Iterator[str]:
    """Serves an image; yields the registry's address as host:port."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            status, kind, body = registry.answer(self.path)
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            if kind == MANIFEST:
                self.send_header("Docker-Content-Digest", registry.digest)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def layer(name: str, content: bytes) -> bytes:
    """An archive with one file."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        entry = tarfile.TarInfo(name)
        entry.size = len(content)
        archive.addfile(entry, io.BytesIO(content))
    return packed.getvalue()
