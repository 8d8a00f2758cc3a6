"""Every address the mesh listens on by default, all on loopback."""

import ipaddress
import socket

ROUTER = "127.0.0.1:7701"
AUTOSCALER = "127.0.0.1:7702"
METRICS = "127.0.0.1:7703"
METRICS_HTTP = "127.0.0.1:7704"
NODE_AGENT = "127.0.0.1:0"
TRACE_RELAY = "127.0.0.1:0"
NATS = "127.0.0.1:7700"


class AddressError(ValueError):
    """Something that is not `host:port`, or that cannot be listened on."""


def split(address: str) -> tuple[str, int]:
    """Host and port of `host:port`; IPv6 hosts stand in brackets. Port 0: the kernel chooses.

    Raises:
        AddressError: if it is not of that form.
    """
    host, separator, port = address.rpartition(":")
    if not separator or not host or not port.isdecimal() or int(port) > 65535:
        raise AddressError(
            f"{address!r} is not an address: write host:port, such as 127.0.0.1:7701"
        )
    return host.strip("[]"), int(port)


def is_loopback(address: str) -> bool:
    """Whether an address can be reached from this machine only."""
    host, _ = split(address)
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_free(address: str) -> None:
    """Checks that nothing listens on an address.

    Raises:
        AddressError: if something does, or the address is not this machine's.
    """
    host, port = split(address)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            probe.listen(1)
        except OSError as error:
            raise AddressError(
                f"cannot listen on {address}: {error.strerror}. Stop what uses the port "
                f"(`ss -ltnp 'sport = :{port}'` shows it) or choose another address"
            ) from error
