"""An address that nothing listens on."""

import contextlib
import random
import socket

PORTS = range(20_000, 32_000)
"""Below those that Linux gives to whoever asks for any, or connects: else one of them could have it
before it is used, or while a server that has it is started again."""


def free_address() -> str:
    """A loopback address with a port that is free now, and that the kernel gives to nobody else."""
    # Seeded by the system, so that two runs of tests seldom try the same one.
    dice = random.SystemRandom()
    while True:
        port = dice.choice(PORTS)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return f"127.0.0.1:{port}"
