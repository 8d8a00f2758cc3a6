"""Metrics of nodes and GPUs. Pure."""

from collections import Counter
from collections.abc import Callable, Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from forebay.v1.metrics_pb2 import Snapshot
from forebay.v1.node_pb2 import (
    REPLICA_RUNTIME_DOCKER,
    REPLICA_RUNTIME_PROCESS,
    REPLICA_RUNTIME_UNSPECIFIED,
    Gpu,
    Node,
)
from services.metrics import gpu_figures
from services.wire import names

_RUNTIMES = {REPLICA_RUNTIME_PROCESS: "process", REPLICA_RUNTIME_DOCKER: "docker"}

_Figure = Callable[[Gpu], float | None]

_FIGURES: tuple[tuple[str, str, _Figure], ...] = (
    (
        "utilization_ratio",
        "Share of the last sample period in which a kernel ran.",
        gpu_figures.utilization_ratio,
    ),
    ("memory_used_bytes", "GPU memory in use.", gpu_figures.memory_used_bytes),
    ("memory_total_bytes", "GPU memory there is.", gpu_figures.memory_total_bytes),
    ("temperature_celsius", "Temperature of the GPU.", gpu_figures.temperature_celsius),
    ("power_watts", "Power the GPU draws.", gpu_figures.power_watts),
    ("power_limit_watts", "Power the GPU may draw.", gpu_figures.power_limit_watts),
)
_ECC_KINDS = ("corrected", "uncorrected")


def node_metrics(snapshot: Snapshot) -> Iterator[Metric]:
    """All metrics of nodes and their GPUs."""
    alive = [
        (names.node_id(node.name), node)
        for node in snapshot.nodes
        if node.state != Node.STATE_OFFLINE
    ]
    yield from _presence(snapshot)
    yield from _agents(alive)
    yield from _resources(alive)
    gpus = [(name, gpu) for name, node in alive for gpu in node.gpus]
    yield from _gpu_health(gpus)
    yield from _gpu_figures(gpus)
    yield from _gpu_errors(gpus)
    yield _gpu_replicas(alive)


def _presence(snapshot: Snapshot) -> Iterator[Metric]:
    """What is known of nodes that do not report, too."""
    up = GaugeMetricFamily("forebay_node_up", "Whether the node reports.", labels=["node"])
    age = GaugeMetricFamily(
        "forebay_node_report_age_seconds", "Age of the node's last good report.", labels=["node"]
    )
    sampled_ns = snapshot.sample_time.ToNanoseconds()
    for node in snapshot.nodes:
        name = names.node_id(node.name)
        up.add_metric([name], float(node.state != Node.STATE_OFFLINE))
        age_s = (sampled_ns - node.last_report_time.ToNanoseconds()) / 1e9
        # This process's clock may have been set back in between.
        age.add_metric([name], max(0.0, age_s))
    yield from (up, age)


def _agents(alive: list[tuple[str, Node]]) -> Iterator[Metric]:
    info = GaugeMetricFamily(
        "forebay_node_info",
        "Version of the node's agent and how it runs replicas.",
        labels=["node", "version", "runtime"],
    )
    draining = GaugeMetricFamily(
        "forebay_node_draining", "Whether the node is about to leave.", labels=["node"]
    )
    usable = GaugeMetricFamily(
        "forebay_node_runtime_usable", "Whether the node can start replicas.", labels=["node"]
    )
    for name, node in alive:
        runtime = _RUNTIMES.get(node.runtime, "unknown")
        info.add_metric([name, node.agent_version, runtime], 1)
        draining.add_metric([name], float(node.state == Node.STATE_DRAINING))
        if node.runtime != REPLICA_RUNTIME_UNSPECIFIED:
            usable.add_metric([name], float(not node.runtime_message))
    yield from (info, draining, usable)


def _resources(alive: list[tuple[str, Node]]) -> Iterator[Metric]:
    slots = GaugeMetricFamily(
        "forebay_node_slots", "Replicas without a GPU the node can run.", labels=["node"]
    )
    cpus = GaugeMetricFamily("forebay_node_cpus", "CPUs replicas may declare.", labels=["node"])
    memory = GaugeMetricFamily(
        "forebay_node_memory_bytes", "Memory replicas may declare.", labels=["node"]
    )
    custom = GaugeMetricFamily(
        "forebay_node_custom_resources",
        "Other resources replicas may declare.",
        labels=["node", "resource"],
    )
    for name, node in alive:
        slots.add_metric([name], node.slot_count)
        # Zero is an agent's word for not known.
        if node.cpus:
            cpus.add_metric([name], node.cpus)
        if node.memory_bytes:
            memory.add_metric([name], node.memory_bytes)
        for resource, amount in sorted(node.custom.items()):
            custom.add_metric([name, resource], amount)
    yield from (slots, cpus, memory, custom)


def _gpu_health(gpus: list[tuple[str, Gpu]]) -> Iterator[Metric]:
    info = GaugeMetricFamily(
        "forebay_gpu_info",
        "Product of the GPU, and the GPU it is a part of.",
        labels=["node", "gpu", "product", "mig_parent"],
    )
    healthy = GaugeMetricFamily(
        "forebay_gpu_healthy", "Whether replicas may run on the GPU.", labels=["node", "gpu"]
    )
    lost = GaugeMetricFamily(
        "forebay_gpu_lost", "Whether the driver has lost the GPU.", labels=["node", "gpu"]
    )
    for node, gpu in gpus:
        info.add_metric([node, gpu.uuid, gpu.product_name, gpu.mig_parent_uuid], 1)
        is_healthy = gpu.health not in (Gpu.HEALTH_FAULTY, Gpu.HEALTH_LOST)
        healthy.add_metric([node, gpu.uuid], float(is_healthy))
        lost.add_metric([node, gpu.uuid], float(gpu.health == Gpu.HEALTH_LOST))
    yield from (info, healthy, lost)


def _gpu_figures(gpus: list[tuple[str, Gpu]]) -> Iterator[Metric]:
    for name, help_text, figure in _FIGURES:
        family = GaugeMetricFamily(f"forebay_gpu_{name}", help_text, labels=["node", "gpu"])
        for node, gpu in gpus:
            value = figure(gpu)
            if value is not None:
                family.add_metric([node, gpu.uuid], value)
        yield family


def _gpu_errors(gpus: list[tuple[str, Gpu]]) -> Iterator[Metric]:
    ecc = CounterMetricFamily(
        "forebay_gpu_ecc_errors", "Memory errors by kind.", labels=["node", "gpu", "kind"]
    )
    xid = CounterMetricFamily(
        "forebay_gpu_xid_errors", "Xid errors by number.", labels=["node", "gpu", "xid"]
    )
    for node, gpu in gpus:
        for kind in _ECC_KINDS:
            if gpu.HasField(f"ecc_{kind}_count"):
                ecc.add_metric([node, gpu.uuid, kind], getattr(gpu, f"ecc_{kind}_count"))
        for number, count in sorted(gpu.xid_counts.items()):
            xid.add_metric([node, gpu.uuid, str(number)], count)
    yield from (ecc, xid)


def _gpu_replicas(alive: list[tuple[str, Node]]) -> Metric:
    held = Counter(
        (names.deployment_id(replica.deployment), node_id, uuid)
        for node_id, node in alive
        for replica in node.replicas
        for uuid in replica.gpu_uuids
    )
    family = GaugeMetricFamily(
        "forebay_gpu_replicas",
        "Replicas of the deployment that hold the GPU or a share of it.",
        labels=["deployment", "node", "gpu"],
    )
    for labels, count in sorted(held.items()):
        family.add_metric(list(labels), count)
    return family
