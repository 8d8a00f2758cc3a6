"""`forebay list`, `status` and `delete`."""

from collections.abc import Sequence
from typing import Any

from google.protobuf.duration_pb2 import Duration

from forebay import addresses
from forebay.cli.failure import UNREACHABLE, CliError
from forebay.cli.link import Link, Where, link_to
from forebay.cli.output import Output, count_of, enum_word, print_json, print_table, say, to_plain
from forebay.cli.scaling_words import (
    gibibytes,
    long_scaling,
    resource_words,
    short_scaling,
    target_of,
)
from forebay.stubs import deployment_service, metrics_service
from forebay.v1.deployment_pb2 import (
    DeleteDeploymentRequest,
    Deployment,
    GetDeploymentRequest,
    ListDeploymentsRequest,
)
from forebay.v1.metrics_pb2 import DeploymentLoad, GetSnapshotRequest, Snapshot
from forebay.v1.node_pb2 import ReplicaStatus
from services.wire.names import (
    InvalidNameError,
    check_id,
    deployment_id,
    deployment_name,
    node_id,
)

UNKNOWN = "unknown"
_PAGE_SIZE = 1000
_NOTHING = "nothing is deployed: deploy a model with `forebay deploy FILE`"


def resource_name(name: str) -> str:
    """Resource name of the deployment a command names.

    Raises:
        CliError: if nothing can be called so.
    """
    try:
        return deployment_name(check_id(name, "deployment"))
    except InvalidNameError as error:
        raise CliError(str(error), exit_code=2) from error


async def list_deployments(where: Where, output: Output) -> None:
    """Prints every deployment with how its replicas are."""
    async with link_to(addresses.AUTOSCALER, where) as autoscaler:
        found = await _deployments(autoscaler)
    if output is Output.JSON:
        print_json([to_plain(deployment) for deployment in found])
        return
    columns = ("NAME", "READY", "STARTING", "UNPLACED", "SCALING", "GENERATION", "MODEL", "STATE")
    print_table(
        columns,
        [
            (
                deployment_id(deployment.name),
                _ready(deployment),
                str(deployment.status.starting_replica_count),
                str(deployment.status.unplaced_replica_count),
                short_scaling(deployment),
                str(deployment.generation),
                deployment.model_digest.removeprefix("sha256:")[:12],
                _state(deployment),
            )
            for deployment in found
        ],
        empty=_NOTHING,
    )


async def status(name: str | None, where: Where, output: Output) -> None:
    """Prints load and replicas of one deployment, or the counts of all."""
    wanted = resource_name(name) if name is not None else None
    async with link_to(addresses.AUTOSCALER, where) as autoscaler:
        found = await (_deployments(autoscaler) if wanted is None else _one(autoscaler, wanted))
    snapshot = await _snapshot(where)
    loads = {load.deployment: load for load in snapshot.deployments} if snapshot else {}
    if wanted is not None:
        _print_one(found[0], loads.get(wanted), _replicas(snapshot, wanted), output)
    elif output is Output.JSON:
        print_json([_with_load(deployment, loads.get(deployment.name)) for deployment in found])
    else:
        _print_all(found, loads)


async def delete(name: str, where: Where, output: Output) -> None:
    """Removes a deployment; its replicas finish what they have."""
    wanted = resource_name(name)
    async with link_to(addresses.AUTOSCALER, where) as autoscaler:
        service = deployment_service(autoscaler.channel)
        await autoscaler.call(service.DeleteDeployment, DeleteDeploymentRequest(name=wanted))
    say(f"{name} deleted; its replicas finish what they have and stop")
    if output is Output.JSON:
        print_json({"deleted": wanted})


async def _deployments(autoscaler: Link) -> list[Deployment]:
    service = deployment_service(autoscaler.channel)
    found: list[Deployment] = []
    token = ""
    while True:
        request = ListDeploymentsRequest(page_size=_PAGE_SIZE, page_token=token)
        page = await autoscaler.call(service.ListDeployments, request)
        found += page.deployments
        token = page.next_page_token
        if not token:
            return found


async def _one(autoscaler: Link, name: str) -> list[Deployment]:
    service = deployment_service(autoscaler.channel)
    answer = await autoscaler.call(service.GetDeployment, GetDeploymentRequest(name=name))
    return [answer.deployment]


async def _snapshot(where: Where) -> Snapshot | None:
    """The current snapshot; None, and a word about it, if metrics is away."""
    async with link_to(addresses.METRICS, where) as metrics:
        service = metrics_service(metrics.channel)
        try:
            answer = await metrics.call(service.GetSnapshot, GetSnapshotRequest(), timeout_s=5)
        except CliError as error:
            if error.exit_code != UNREACHABLE:
                raise
            say(f"load is unknown: {error}")
            return None
    snapshot: Snapshot = answer.snapshot
    return snapshot


def _replicas(snapshot: Snapshot | None, name: str) -> list[tuple[str, ReplicaStatus]]:
    return [
        (node_id(node.name), replica)
        for node in (snapshot.nodes if snapshot else ())
        for replica in node.replicas
        if replica.deployment == name
    ]


def _with_load(deployment: Deployment, load: DeploymentLoad | None) -> dict[str, Any]:
    return {**to_plain(deployment), "load": to_plain(load) if load else None}


def _print_all(found: Sequence[Deployment], loads: dict[str, DeploymentLoad]) -> None:
    rows = []
    for deployment in found:
        state, load = deployment.status, loads.get(deployment.name)
        rows.append(
            (
                deployment_id(deployment.name),
                _ready(deployment),
                str(state.starting_replica_count),
                str(state.unplaced_replica_count),
                str(state.draining_replica_count),
                str(state.failed_replica_count),
                _with_tasks(load, "queued"),
                _with_tasks(load, "ongoing"),
                short_scaling(deployment),
                _state(deployment),
            )
        )
    counts = ("READY", "STARTING", "UNPLACED", "DRAINING", "FAILED", "QUEUED", "ONGOING")
    print_table(("NAME", *counts, "SCALING", "STATE"), rows, empty=_NOTHING)


_REPLICA_COLUMNS = ("REPLICA", "NODE", "STATE", "GENERATION", "ONGOING", "STARTED IN", "MESSAGE")


def _started_in(replica: ReplicaStatus) -> str:
    if not replica.HasField("startup_time"):
        return ""
    return f"{replica.startup_time.ToMilliseconds() / 1000:.1f} s"


def _print_one(
    deployment: Deployment,
    load: DeploymentLoad | None,
    replicas: list[tuple[str, ReplicaStatus]],
    output: Output,
) -> None:
    if output is Output.JSON:
        listed = [{"node": node, **to_plain(replica)} for node, replica in replicas]
        print_json({**_with_load(deployment, load), "replica_statuses": listed})
        return
    print_table(("", deployment_id(deployment.name)), _facts(deployment, load))
    print_table(
        tuple(f"\n{column}" for column in _REPLICA_COLUMNS),
        [
            (
                replica.replica_id,
                node,
                enum_word("State", ReplicaStatus.State.Name(replica.state)),
                str(replica.generation),
                f"{replica.ongoing_count}/{replica.max_ongoing_requests}",
                _started_in(replica),
                replica.message,
            )
            for node, replica in replicas
        ],
        empty="no node reports a replica of it",
    )


def _facts(deployment: Deployment, load: DeploymentLoad | None) -> list[tuple[str, str]]:
    state = deployment.status
    facts = [
        ("state", _state(deployment)),
        ("replicas ready", f"{state.ready_replica_count} of {target_of(deployment)}"),
        ("starting", str(state.starting_replica_count)),
        ("unplaced", str(state.unplaced_replica_count)),
        ("scaling", _scaling(deployment)),
        ("pinned", _pinned(deployment)),
        ("last decision", state.decision_reason or "none yet"),
        ("start-up time", _startup(deployment)),
        ("needs", resource_words(deployment.resources)),
        *_gpu_facts(deployment),
        *([("image", deployment.image)] if deployment.image else []),
        ("generation", str(deployment.generation)),
        ("model", deployment.model_digest),
        ("queued", _with_tasks(load, "queued")),
        ("ongoing", _with_tasks(load, "ongoing")),
        ("redelivered", _count(load, "redelivered_count")),
        ("dead tasks", str(load.dead_task_count) if load else UNKNOWN),
    ]
    arrivals = load is not None and load.HasField("arrivals_per_second")
    facts.append(
        ("arrivals per second", f"{load.arrivals_per_second:.1f}" if load and arrivals else UNKNOWN)
    )
    for title, quantiles in (("queue wait", "queue_wait"), ("service time", "service_time")):
        facts.append((f"{title} p50, p95, p99", _quantiles(load, quantiles)))
    return facts


def _gpu_facts(deployment: Deployment) -> list[tuple[str, str]]:
    """GPU memory as measured, if it is, and what is wrong."""
    state, facts = deployment.status, []
    if state.max_gpu_memory_used_bytes:
        declared = deployment.resources.gpu_memory_bytes
        beside = f", {gibibytes(declared)} declared" if declared else ", none declared"
        most = gibibytes(state.max_gpu_memory_used_bytes)
        facts.append(("GPU memory in use", f"{most} by the largest replica{beside}"))
    facts += [("warning", warning) for warning in state.warnings]
    return facts


def _scaling(deployment: Deployment) -> str:
    if deployment.HasField("scaling"):
        return long_scaling(deployment.scaling)
    return f"fixed at {count_of(deployment.replicas, 'replica')}"


def _pinned(deployment: Deployment) -> str:
    if not deployment.HasField("pinned_replicas"):
        return "no"
    name = deployment_id(deployment.name)
    pinned = count_of(deployment.pinned_replicas, "replica")
    return f"{pinned}, until `forebay scale {name} --release`"


def _startup(deployment: Deployment) -> str:
    if not deployment.status.HasField("startup_time"):
        return UNKNOWN
    return f"{deployment.status.startup_time.ToMicroseconds() / 1e6:.1f} s"


def _quantiles(load: DeploymentLoad | None, field: str) -> str:
    if load is None or not load.HasField(field):
        return UNKNOWN
    quantiles = getattr(load, field)
    if quantiles.count == 0:
        return "nothing lately"
    return ", ".join(_ms(value) for value in (quantiles.p50, quantiles.p95, quantiles.p99))


def _ms(duration: Duration) -> str:
    return f"{duration.ToMicroseconds() / 1000:.1f} ms"


def _with_tasks(load: DeploymentLoad | None, state: str) -> str:
    """Requests and tasks, and how many of them are tasks if any are."""
    count = _count(load, f"{state}_count")
    tasks = getattr(load, f"{state}_task_count") if load is not None else 0
    return f"{count} ({count_of(tasks, 'task')})" if tasks else count


def _count(load: DeploymentLoad | None, field: str) -> str:
    known = load is not None and load.HasField(field)
    return str(getattr(load, field)) if known else UNKNOWN


def _ready(deployment: Deployment) -> str:
    return f"{deployment.status.ready_replica_count}/{target_of(deployment)}"


def _state(deployment: Deployment) -> str:
    if deployment.status.message:
        said = str(deployment.status.message)
    else:
        said = "ready" if target_of(deployment) else "at zero"
    warnings = len(deployment.status.warnings)
    return f"{said} ({count_of(warnings, 'warning')})" if warnings else said
