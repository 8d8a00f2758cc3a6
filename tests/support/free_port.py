"""An address that nothing listens on."""

import socket


def free_address() -> str:
    """A loopback address with a port the kernel chose and gave back."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"
