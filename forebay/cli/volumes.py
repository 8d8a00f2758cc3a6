"""`forebay volumes`: the folders that nodes offer, by name."""

from collections.abc import Sequence
from typing import Any

from forebay import volumes
from forebay.cli.failure import USAGE, CliError
from forebay.cli.link import Where
from forebay.cli.nodes import list_nodes
from forebay.cli.output import Output, print_json, print_table
from forebay.v1.node_pb2 import Node
from services.wire.names import node_id

_MOST_NAMED = 5


async def run(where: Where, output: Output) -> None:
    """Prints every volume with the nodes that offer it, and where it is on this machine."""
    try:
        here = volumes.here(where.state_dir)
    except volumes.VolumeError as error:
        raise CliError(str(error), USAGE) from error
    offers = by_volume(await list_nodes(where))
    found = [
        {
            "name": name,
            "read_write_nodes": offers.get(name, ([], []))[0],
            "read_only_nodes": offers.get(name, ([], []))[1],
            "path": str(here[name].path) if name in here else None,
            "path_read_only": here[name].read_only if name in here else None,
        }
        for name in sorted({*offers, *here})
    ]
    if output is Output.JSON:
        print_json(found)
        return
    print_table(
        ("VOLUME", "READ AND WRITE", "READ ONLY", "ON THIS MACHINE"),
        [_row(one) for one in found],
        empty="no node offers a volume: `forebay up --volume NAME`, or the node agents' setting "
        "volumes",
    )


def by_volume(nodes: Sequence[Node]) -> dict[str, tuple[list[str], list[str]]]:
    """Names of the nodes that offer each volume for reading and writing, and for reading only."""
    found: dict[str, tuple[list[str], list[str]]] = {}
    for node in nodes:
        for name in node.volumes:
            both = found.setdefault(name, ([], []))
            both[name in node.read_only_volumes].append(node_id(node.name))
    return found


def _row(one: dict[str, Any]) -> tuple[str, ...]:
    path = one["path"] or "unknown"
    return (
        one["name"],
        _named(one["read_write_nodes"]),
        _named(one["read_only_nodes"]),
        f"{path} (read only)" if one["path_read_only"] else path,
    )


def _named(nodes: list[str]) -> str:
    more = len(nodes) - _MOST_NAMED
    listed = ", ".join(nodes[:_MOST_NAMED]) or "none"
    return f"{listed} and {more} more" if more > 0 else listed
