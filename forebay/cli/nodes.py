"""`forebay nodes` and `demand`: the machines there are, and those that are missing."""

from collections import Counter
from collections.abc import Sequence

from forebay import addresses
from forebay.cli.link import Where, link_to
from forebay.cli.output import Output, enum_word, print_json, print_table, say, to_plain
from forebay.cli.scaling_words import gibibytes, resource_words
from forebay.stubs import autoscaler_service, node_service
from forebay.v1.autoscaler_pb2 import GetNodeDemandRequest
from forebay.v1.node_pb2 import (
    REPLICA_RUNTIME_DOCKER,
    REPLICA_RUNTIME_PROCESS,
    Gpu,
    ListNodesRequest,
    Node,
)
from services.wire.names import deployment_id, node_id
from services.wire.shared_gpus import shared_by, through

_PAGE_SIZE = 1000
_MOST_NAMED = 5
_RUNTIMES = {REPLICA_RUNTIME_PROCESS: "process", REPLICA_RUNTIME_DOCKER: "docker"}
_NODE_COLUMNS = (
    "NAME",
    "STATE",
    "RUNTIME",
    "SLOTS USED",
    "GPUS USED",
    "CPUS",
    "MEMORY",
    "CUSTOM",
    "REPLICAS",
    "REPORTED (UTC)",
)
_GPU_COLUMNS = (
    "\nGPU",
    "\nNODE",
    "\nPRODUCT",
    "\nMEMORY USED",
    "\nBUSY",
    "\nCELSIUS",
    "\nPOWER",
    "\nHEALTH",
)
_HEALTH = {Gpu.HEALTH_FAULTY: "faulty", Gpu.HEALTH_LOST: "lost"}


async def list_nodes(where: Where) -> list[Node]:
    """Every node, by name.

    Raises:
        CliError: if metrics cannot be asked.
    """
    found: list[Node] = []
    async with link_to(addresses.METRICS, where) as metrics:
        service, token = node_service(metrics.channel), ""
        while True:
            request = ListNodesRequest(page_size=_PAGE_SIZE, page_token=token)
            page = await metrics.call(service.ListNodes, request)
            found += page.nodes
            token = page.next_page_token
            if not token:
                return found


async def nodes(where: Where, output: Output) -> None:
    """Prints every node with what it has and runs."""
    found = await list_nodes(where)
    if output is Output.JSON:
        print_json([to_plain(node) for node in found])
        return
    _print_used(
        _NODE_COLUMNS,
        [_node_row(node) for node in found],
        empty="no node has reported: start one with `forebay-node-agent`, or `forebay up`",
    )
    if rows := gpu_rows(found):
        _print_used(_GPU_COLUMNS, rows)
    # Sentences, for which no column of a table has room.
    if notes := notes_of(found):
        print_table(("\nNODE", "\nNOTE"), notes)


async def demand(where: Where, output: Output) -> None:
    """Prints what replicas without a place need, and nodes that may go."""
    async with link_to(addresses.AUTOSCALER, where) as autoscaler:
        service = autoscaler_service(autoscaler.channel)
        answer = await autoscaler.call(service.GetNodeDemand, GetNodeDemandRequest())
    found = answer.node_demand
    if output is Output.JSON:
        print_json(to_plain(found))
        return
    if not found.HasField("sample_time"):
        say("nothing has been looked at yet: try again in a second")
        return
    print_table(
        ("REPLICAS WITHOUT A PLACE", "EACH NEEDS", "OF"),
        [
            (
                str(shape.replica_count),
                resource_words(shape.resources),
                _named([deployment_id(name) for name in shape.deployments]),
            )
            for shape in found.unplaced
        ],
        empty="every replica has a place",
    )
    print_table(
        ("\nNODES THAT MAY GO" if found.unplaced else "NODES THAT MAY GO",),
        [(node_id(name),) for name in found.releasable_nodes],
        empty="no node may go",
    )
    for name in found.evacuating_nodes:
        say(f"{node_id(name)} is lightly used: its replicas move to fuller nodes")
    if found.provider_note:
        say(f"node provider: {found.provider_note}")


def _print_used(columns: Sequence[str], rows: Sequence[Sequence[str]], empty: str = "") -> None:
    """Prints a table without the columns that say nothing in any row."""
    used = [i for i in range(len(columns)) if any(row[i] for row in rows)]
    kept = [[row[i] for i in used] for row in rows]
    print_table([columns[i] for i in used], kept, empty)


def _node_row(node: Node) -> tuple[str, ...]:
    on_slots = sum(not replica.gpu_uuids for replica in node.replicas)
    reported = node.last_report_time.ToDatetime().strftime("%H:%M:%S")
    return (
        node_id(node.name),
        enum_word("State", Node.State.Name(node.state)),
        _RUNTIMES.get(node.runtime, "unknown"),
        f"{on_slots}/{node.slot_count}",
        _gpus_in_use(node),
        f"{node.cpus:g}" if node.cpus else "unknown",
        gibibytes(node.memory_bytes) if node.memory_bytes else "unknown",
        ", ".join(f"{name} {amount:g}" for name, amount in sorted(node.custom.items())),
        str(len(node.replicas)),
        reported if node.HasField("last_report_time") else "never",
    )


def _gpus_in_use(node: Node) -> str:
    """What replicas hold of the node's GPUs, in GPUs: it is free for no other."""
    # An agent of an older version says which GPUs and not how much of them.
    held = sum(replica.gpus or len(replica.gpu_uuids) for replica in node.replicas)
    return f"{round(held, 3):g}/{len(node.gpus)}" if node.gpus or held else "none"


def notes_of(nodes: Sequence[Node]) -> list[tuple[str, str]]:
    """What is to be said of nodes and their GPUs, each with the node's id."""
    shared = _shared(nodes)
    found: list[tuple[str, str]] = []
    for node in nodes:
        name = node_id(node.name)
        found += [(name, said) for said in (node.runtime_message, node.gpu_message) if said]
        for gpu in node.gpus:
            said = "; ".join(filter(None, (gpu.health_message, shared.get(gpu.uuid, ""))))
            if said:
                found.append((name, f"{_short(gpu.uuid)}: {said}"))
    return found


def gpu_rows(nodes: Sequence[Node]) -> list[tuple[str, ...]]:
    """One row for each GPU of each node: how full, busy, warm and well it is."""
    return [
        (
            _short(gpu.uuid),
            node_id(node.name),
            _product(gpu),
            _memory(gpu),
            _busy(gpu),
            f"{gpu.temperature_celsius:.0f}" if gpu.HasField("temperature_celsius") else "",
            _power(gpu),
            _HEALTH.get(gpu.health, "ok"),
        )
        for node in nodes
        for gpu in node.gpus
    ]


def _short(uuid: str) -> str:
    """As much of a UUID as tells GPUs apart; all of it is in JSON."""
    kind, dash, rest = uuid.partition("-")
    return f"{kind}-{rest.partition('-')[0]}" if dash and kind in ("GPU", "MIG") else uuid


def _product(gpu: Gpu) -> str:
    if gpu.simulated and "simulated" not in gpu.product_name.lower():
        return f"{gpu.product_name} (simulated)"
    if gpu.mig_parent_uuid:
        return f"{gpu.product_name} (of {_short(gpu.mig_parent_uuid)})"
    return str(gpu.product_name)


def _memory(gpu: Gpu) -> str:
    if gpu.health == Gpu.HEALTH_LOST:
        return ""
    return f"{gpu.memory_used_bytes / 2**30:.3g} of {gibibytes(gpu.memory_total_bytes)}"


def _busy(gpu: Gpu) -> str:
    """How busy; nothing of what is made up, or what NVML does not tell."""
    known = not (gpu.simulated or gpu.mig_parent_uuid or gpu.health == Gpu.HEALTH_LOST)
    return f"{gpu.utilization_ratio:.0%}" if known else ""


def _power(gpu: Gpu) -> str:
    if not gpu.HasField("power_watts"):
        return ""
    limit = f" of {gpu.power_limit_watts:.0f}" if gpu.HasField("power_limit_watts") else ""
    return f"{gpu.power_watts:.0f}{limit} W"


def _shared(nodes: Sequence[Node]) -> dict[str, str]:
    """What to say of each GPU that several nodes report."""
    reported = shared_by((node_id(n.name), [gpu.uuid for gpu in n.gpus]) for n in nodes)
    if not reported:
        return {}
    away = [node_id(node.name) for node in nodes if node.state == Node.STATE_OFFLINE]
    held = {
        uuid: Counter(node_id(n.name) for n in nodes for r in n.replicas if uuid in r.gpu_uuids)
        for uuid in reported
    }
    return {
        uuid: f"nodes {' and '.join(names)} report it: used through "
        f"{through(names, held[uuid], away)}"
        for uuid, names in reported.items()
    }


def _named(names: list[str]) -> str:
    more = len(names) - _MOST_NAMED
    listed = ", ".join(names[:_MOST_NAMED])
    return f"{listed} and {more} more" if more > 0 else listed
