"""What a node is called if nobody says so: the same for its agent and its launcher."""

import re
import socket


def default_node() -> str:
    """This machine's host name, as far as a node may be called so."""
    name = re.sub(r"[^a-z0-9-]", "-", socket.gethostname().lower().partition(".")[0]).strip("-")
    return name[:63].strip("-") if re.match(r"[a-z]", name) else f"node-{name}"[:63].strip("-")
