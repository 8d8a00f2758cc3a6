"""How gRPC channels and servers are set up, the same on both sides of every link."""

from typing import Any

import grpc.aio

from services.runtime import ports
from services.wire.limits import MAX_GRPC_MESSAGE_BYTES

_KEEPALIVE: list[tuple[str, Any]] = [
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
]

SERVER_OPTIONS: list[tuple[str, Any]] = [
    # On by default: a second server would silently share the port instead of failing.
    ("grpc.so_reuseport", 0),
    ("grpc.max_receive_message_length", MAX_GRPC_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_GRPC_MESSAGE_BYTES),
    # Probing opens windows of megabytes, so that bodies pile up in memory before anyone reads them:
    # 127 MB resident with 64 callers of 600 KB, 80 MB without, at the same speed.
    ("grpc.http2.bdp_probe", 0),
    # The default of 300 s answers our clients' pings with GOAWAY.
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    *_KEEPALIVE,
]

CHANNEL_OPTIONS: list[tuple[str, Any]] = [
    ("grpc.max_receive_message_length", MAX_GRPC_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_GRPC_MESSAGE_BYTES),
    ("grpc.initial_reconnect_backoff_ms", 100),
    # Also how long one attempt may take: with 100 ms, a thousand agents that dial at once all fail.
    ("grpc.min_reconnect_backoff_ms", 5_000),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    *_KEEPALIVE,
]


def open_channel(address: str) -> grpc.aio.Channel:
    """A channel to a process of the mesh at `host:port`."""
    return grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS)


def listen(server: grpc.aio.Server, address: str) -> str:
    """Has a server listen and returns where it does, with the port the kernel chose for port 0.

    Raises:
        ports.AddressError: if the address cannot be listened on.
    """
    ports.check_free(address)
    try:
        port = server.add_insecure_port(address)
    except RuntimeError as error:
        raise ports.AddressError(f"cannot listen on {address}: {error}") from error
    return f"{address.rpartition(':')[0]}:{port}"
