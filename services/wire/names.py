"""What deployments and nodes may be called: names become NATS subjects and directory names."""

import re

DEPLOYMENT_PREFIX = "deployments/"
NODE_PREFIX = "nodes/"

_ID = re.compile(r"[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?")
_LEGAL = "1 to 63 of a-z, 0-9 and '-', starting with a letter and not ending with '-'"


class InvalidNameError(ValueError):
    """A name that cannot name a deployment or a node; the text says what may."""


def is_id(text: str) -> bool:
    """Whether `text` may be the last segment of a resource name."""
    return len(text) <= 63 and _ID.fullmatch(text) is not None


def check_id(text: str, kind: str) -> str:
    """Returns `text` if it may name a `kind`, such as a deployment.

    Raises:
        InvalidNameError: if it may not; the message quotes at most 80 characters of it.
    """
    if is_id(text):
        return text
    raise InvalidNameError(f"{quoted(text)} cannot name a {kind}: a name is {_LEGAL}")


def quoted(text: str) -> str:
    """`text` as an error message may show it: ASCII, in quotes, at most 80 characters."""
    shown = ascii(text)
    return shown if len(shown) <= 80 else f"{shown[:77]}…' ({len(text)} characters)"


def deployment_name(deployment_id: str) -> str:
    """Resource name of a deployment."""
    return DEPLOYMENT_PREFIX + deployment_id


def deployment_id(name: str) -> str:
    """Last segment of a deployment's resource name `deployments/{deployment}`.

    Raises:
        InvalidNameError: if `name` is not such a name.
    """
    return _last_segment(name, DEPLOYMENT_PREFIX, "deployment")


def node_name(node_id: str) -> str:
    """Resource name of a node."""
    return NODE_PREFIX + node_id


def node_id(name: str) -> str:
    """Last segment of a node's resource name `nodes/{node}`.

    Raises:
        InvalidNameError: if `name` is not such a name.
    """
    return _last_segment(name, NODE_PREFIX, "node")


def _last_segment(name: str, prefix: str, kind: str) -> str:
    if not name.startswith(prefix):
        raise InvalidNameError(f"{quoted(name)} is not a {kind}: write {prefix}{{{kind}}}")
    return check_id(name.removeprefix(prefix), kind)
