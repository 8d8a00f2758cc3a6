"""`forebay nodes` and `demand`: the machines there are, and those that are missing."""

from forebay import addresses
from forebay.cli.link import Where, link_to
from forebay.cli.output import Output, enum_word, print_json, print_table, say, to_plain
from forebay.cli.scaling_words import gigabytes, resource_words
from forebay.stubs import autoscaler_service, node_service
from forebay.v1.autoscaler_pb2 import GetNodeDemandRequest
from forebay.v1.node_pb2 import Gpu, ListNodesRequest, Node
from services.wire.names import deployment_id, node_id

_PAGE_SIZE = 1000
_MOST_NAMED = 5


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
    columns = ("NAME", "STATE", "SLOTS IN USE", "GPUS IN USE", "CPUS", "MEMORY", "GPUS", "CUSTOM")
    print_table(
        (*columns, "REPLICAS", "LAST REPORT", "NOTE"),
        [_node_row(node) for node in found],
        empty="no node has reported: start one with `forebay-node-agent`, or `forebay up`",
    )


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


def _node_row(node: Node) -> tuple[str, ...]:
    on_slots = sum(not replica.gpu_uuids for replica in node.replicas)
    reported = node.last_report_time.ToDatetime().strftime("%H:%M:%SZ")
    return (
        node_id(node.name),
        enum_word("State", Node.State.Name(node.state)),
        f"{on_slots}/{node.slot_count}",
        _gpus_in_use(node),
        f"{node.cpus:g}" if node.cpus else "unknown",
        gigabytes(node.memory_bytes) if node.memory_bytes else "unknown",
        ", ".join(_gpu(gpu) for gpu in node.gpus) or "none",
        ", ".join(f"{name} {amount:g}" for name, amount in sorted(node.custom.items())) or "none",
        str(len(node.replicas)),
        reported if node.HasField("last_report_time") else "never",
        node.gpu_message,
    )


def _gpus_in_use(node: Node) -> str:
    """What replicas hold of the node's GPUs, in GPUs: it is free for no other."""
    # An agent of an older version says which GPUs and not how much of them.
    held = sum(replica.gpus or len(replica.gpu_uuids) for replica in node.replicas)
    return f"{round(held, 3):g}/{len(node.gpus)}" if node.gpus or held else "none"


def _gpu(gpu: Gpu) -> str:
    if gpu.simulated:
        # What is in use of it is made up too.
        return f"{gpu.product_name} {gigabytes(gpu.memory_total_bytes)} (simulated)"
    return (
        f"{gpu.product_name} {gpu.memory_used_bytes / 1e9:.0f}/{gpu.memory_total_bytes / 1e9:.0f} "
        f"GB {gpu.utilization_ratio:.0%}"
    )


def _named(names: list[str]) -> str:
    more = len(names) - _MOST_NAMED
    listed = ", ".join(names[:_MOST_NAMED])
    return f"{listed} and {more} more" if more > 0 else listed
