"""The dashboard of the whole mesh."""

from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.builders.table import Panel as TablePanel
from grafana_foundation_sdk.models import dashboard

from scripts.dashboards import panels
from scripts.dashboards.panels import REPLICA_LOOK, Look, Query, number, plot, states

_MANY = 15
"""Series in a plot by deployment: those with most."""

_GPU = "{{node}} {{gpu}}"

_TABLE = {
    "Queued": ("forebay_queued_requests + forebay_queued_tasks", "short"),
    "Ongoing": ("forebay_ongoing_requests + forebay_ongoing_tasks", "short"),
    "Ready": ('sum by (deployment) (forebay_replicas{state="ready"})', "short"),
    "Target": ("max by (deployment) (forebay_target_replicas)", "short"),
    "Failed": ('sum by (deployment) (forebay_replicas{state="failed"})', "short"),
    "Arrivals": ("forebay_arrivals_per_second", "reqps"),
    "Wait p95": ("deployment:forebay_queue_wait_seconds:p95_5m", "s"),
    "Service p95": ("deployment:forebay_service_time_seconds:p95_5m", "s"),
    "Calls failed": ("deployment:forebay_router_calls:failed_ratio_5m", "percentunit"),
}


def make() -> builders.Dashboard:
    """Puts it together."""
    made = (
        builders.Dashboard("Forebay: the mesh")
        .uid(panels.MESH_UID)
        .description("All deployments, nodes, GPUs and streams of a mesh.")
        .tags([panels.TAG])
        .refresh("10s")
        .time("now-1h", "now")
        .tooltip(dashboard.DashboardCursorSync.CROSSHAIR)
        .readonly()
        .variables(panels.data_sources())
        .annotations(
            [
                panels.mark("Scaled up", "up", "", "green"),
                panels.mark("Scaled down", "down", "", "blue"),
                panels.mark("Held", "hold", "", "orange", shown=False),
            ]
        )
        .links(
            [
                panels.to_dashboard("One deployment", panels.DEPLOYMENT_UID, ""),
                panels.to_jaeger("Traces"),
            ]
        )
    )
    for title, row in (
        ("Now", [*_now(), _deployments()]),
        ("Load", _load()),
        ("Replicas", _replicas()),
        ("GPUs", [*_gpus(), *_gpu_health()]),
        ("Nodes", _nodes()),
        ("Streams and services", _streams()),
    ):
        made.with_row(builders.Row(title))
        for panel in row:
            made.with_panel(panel)
    return made


def _now() -> list:
    waiting = "forebay_queued_requests + forebay_queued_tasks > 0"
    ready = 'forebay_replicas{state="ready"} > 0'
    return [
        number(
            "Alerts",
            "Alerts of this mesh that fire.",
            "short",
            Query(
                'count(ALERTS{alertstate="firing",alertname=~"Forebay.+"}) or 0 * count(up)',
                "alerts",
            ),
            panels.BAD_ABOVE_ZERO,
        ),
        number(
            "Waiting in vain",
            "Deployments with something queued and no ready replica.",
            "short",
            Query(
                f"count(({waiting}) unless on (deployment) ({ready}))"
                " or 0 * count(forebay_nats_connected)",
                "deployments",
            ),
            panels.BAD_ABOVE_ZERO,
        ),
        number(
            "Queued",
            "Requests and tasks that no replica has taken yet.",
            "short",
            Query("sum(forebay_queued_requests) + sum(forebay_queued_tasks)", "queued"),
        ),
        number(
            "Nodes silent",
            "Nodes that have stopped reporting within the last hour.",
            "short",
            Query("count(forebay_node_up) - sum(forebay_node_up)", "nodes"),
            panels.BAD_ABOVE_ZERO,
        ),
        number(
            "GPUs out of order",
            "Faulty or lost. A dash: there are no GPUs.",
            "short",
            Query("count(forebay_gpu_healthy) - sum(forebay_gpu_healthy)", "GPUs"),
            panels.BAD_ABOVE_ZERO,
        ),
        number(
            "Leading autoscalers",
            "Exactly one leads. None: nothing is scaled or placed.",
            "short",
            Query("sum(forebay_autoscaler_leading)", "leading"),
            ((None, "red"), (1, "green"), (2, "red")),
        ),
    ]


def _deployments() -> TablePanel:
    table = (
        TablePanel()
        .title("Deployments")
        .description("A name leads to its dashboard.")
        .datasource(panels.PROMETHEUS)
        .height(10)
        .span(24)
        .targets(
            [
                panels.table_query(f"sum by (deployment) ({expr})", ref)
                for ref, (expr, _) in zip("ABCDEFGHI", _TABLE.values(), strict=True)
            ]
        )
        .with_transformation(
            dashboard.DataTransformerConfig(
                "joinByField", options={"byField": "deployment", "mode": "outer"}
            )
        )
        .with_transformation(
            dashboard.DataTransformerConfig(
                "organize",
                options={
                    "excludeByName": {f"Time {i}": True for i in range(1, 10)} | {"Time": True},
                    "renameByName": {"deployment": "Deployment"}
                    | {
                        f"Value #{ref}": name for ref, name in zip("ABCDEFGHI", _TABLE, strict=True)
                    },
                },
            )
        )
    )
    url = f"/d/{panels.DEPLOYMENT_UID}?var-deployment=${{__value.text}}&${{__url_time_range}}"
    link = {"title": "Open ${__value.text}", "url": url}
    table.override_by_name("Deployment", [dashboard.DynamicConfigValue("links", [link])])
    for name, (_, unit) in _TABLE.items():
        table.override_by_name(name, [dashboard.DynamicConfigValue("unit", unit)])
    return table


def _load() -> list:
    by_outcome = "sum by (outcome) (rate(forebay_router_calls_total[$__rate_interval]))"
    return [
        plot(
            "Queued by deployment",
            "Requests and tasks; the deployments with most.",
            "short",
            [_most("forebay_queued_requests + forebay_queued_tasks")],
        ),
        plot(
            "Ongoing by deployment",
            "Requests and tasks; the deployments with most.",
            "short",
            [_most("forebay_ongoing_requests + forebay_ongoing_tasks")],
        ),
        plot(
            "Arrivals by deployment",
            "Requests and tasks; the deployments with most.",
            "reqps",
            [_most("forebay_arrivals_per_second")],
        ),
        plot(
            "Outcomes of calls",
            "What callers of the routers were told.",
            "reqps",
            [Query(by_outcome, "{{outcome}}")],
            Look(stacked=".*", colours={"^ok$": "green", "^internal$": "red"}),
        ),
        plot(
            "Queue wait p95 by deployment",
            "Over five minutes; the deployments that wait longest.",
            "s",
            [_most("deployment:forebay_queue_wait_seconds:p95_5m")],
        ),
        plot(
            "Calls held by the routers",
            "Near `max_pending_calls`: add a router.",
            "short",
            [Query("forebay_router_pending_calls", "{{instance}}")],
        ),
    ]


def _replicas() -> list:
    return [
        plot(
            "Replicas: target, assigned, ready",
            "Over all deployments.",
            "short",
            [
                *[
                    Query(f'sum(forebay_replicas{{state="{state}"}})', state)
                    for state in ("ready", "starting", "draining", "failed")
                ],
                Query("sum(forebay_target_replicas)", "target"),
                Query("sum(forebay_assigned_replicas)", "assigned"),
            ],
            REPLICA_LOOK,
        ),
        plot(
            "Replicas without a place",
            "By deployment. Add nodes, or ask for less. Empty: all have one.",
            "short",
            [Query("forebay_unplaced_replicas > 0", "{{deployment}}")],
            Look(steps=True),
        ),
        plot(
            "Cold starts by deployment",
            "Mean time from a Triton's start to ready; the slowest.",
            "s",
            [_most("forebay_replica_startup_seconds")],
        ),
        plot(
            "Scale decisions",
            "Made in a minute, over all deployments.",
            "short",
            [
                Query(
                    "sum by (direction) (increase(forebay_scale_decisions_total[1m]))",
                    "{{direction}}",
                )
            ],
            Look(colours={"^up$": "green", "^down$": "blue", "^hold$": "orange"}),
        ),
    ]


def _gpus() -> list:
    used = "forebay_gpu_memory_used_bytes / forebay_gpu_memory_total_bytes"
    return [
        plot(
            "GPU utilisation",
            "Share of time in which a kernel ran.",
            "percentunit",
            [Query("forebay_gpu_utilization_ratio", _GPU)],
            Look(width=8, most=1),
        ),
        plot(
            "GPU memory in use",
            "Near all of it: the next replica will not fit.",
            "percentunit",
            [Query(used, _GPU)],
            Look(width=8, most=1, thresholds=((None, "transparent"), (0.95, "red"))),
        ),
        plot(
            "GPU memory of the mesh",
            "Used and there is, and what replicas hold as measured.",
            "bytes",
            [
                Query("sum(forebay_gpu_memory_used_bytes)", "used"),
                Query("sum(forebay_gpu_memory_total_bytes)", "there is"),
                Query("sum(forebay_replica_gpu_memory_used_bytes)", "held by replicas"),
            ],
            Look(width=8),
        ),
    ]


def _gpu_health() -> list:
    return [
        plot(
            "GPU temperature",
            "Above 85 °C for long the GPU slows itself down.",
            "celsius",
            [Query("forebay_gpu_temperature_celsius", _GPU)],
            Look(width=8, thresholds=((None, "transparent"), (85, "red"))),
        ),
        plot(
            "GPU power",
            "At the limit for long, it is the limit that bounds the speed.",
            "watt",
            [
                Query("forebay_gpu_power_watts", _GPU),
                Query("max(forebay_gpu_power_limit_watts)", "highest limit"),
            ],
            Look(width=8),
        ),
        states(
            "GPU health",
            "Red: faulty or lost. Its replicas move by themselves; most faults need a reset.",
            Query("forebay_gpu_healthy", _GPU),
            {"0": ("out of order", "red"), "1": ("healthy", "green")},
            width=8,
        ),
        plot(
            "GPU errors",
            "Xid errors, and memory errors not corrected, in five minutes. Empty: none.",
            "short",
            [
                Query("increase(forebay_gpu_xid_errors_total[5m]) > 0", f"{_GPU} Xid {{{{xid}}}}"),
                Query(
                    'increase(forebay_gpu_ecc_errors_total{kind="uncorrected"}[5m]) > 0',
                    f"{_GPU} ECC",
                ),
            ],
            Look(width=24),
        ),
    ]


def _nodes() -> list:
    return [
        states(
            "Nodes",
            "Red: the node does not report.",
            Query("forebay_node_up", "{{node}}"),
            {"0": ("silent", "red"), "1": ("up", "green")},
        ),
        states(
            "Nodes that can start replicas",
            "Red: mostly the launcher or the container engine is down. What runs goes on.",
            Query("forebay_node_runtime_usable", "{{node}}"),
            {"0": ("cannot", "red"), "1": ("can", "green")},
        ),
    ]


def _streams() -> list:
    return [
        plot(
            "Streams: how full",
            "A full stream refuses what is new; a journal lets its oldest go.",
            "percentunit",
            [Query("forebay_stream_bytes / forebay_stream_max_bytes", "{{stream}}")],
            Look(width=8, most=1, thresholds=((None, "transparent"), (0.8, "red"))),
        ),
        plot(
            "Dead letters kept",
            "Look at them, mend the cause, try them again.",
            "short",
            [Query('forebay_stream_messages{stream="FOREBAY_DEAD_TASKS"}', "dead letters")],
            Look(width=8),
        ),
        plot(
            "Copies of streams that are missing",
            "A nats-server is down or slow. With half of the copies nothing can be stored. Empty: "
            "none is missing.",
            "short",
            [Query("forebay_stream_copies - forebay_stream_current_copies > 0", "{{stream}}")],
            Look(width=8, steps=True),
        ),
        plot(
            "CPU of the services",
            "Of one core.",
            "percentunit",
            [_service('rate(process_cpu_seconds_total{job=~"forebay-.*"}[$__rate_interval])')],
            Look(width=8),
        ),
        plot(
            "Memory of the services",
            "Resident.",
            "bytes",
            [_service('process_resident_memory_bytes{job=~"forebay-.*"}')],
            Look(width=8),
        ),
        plot(
            "Age of what is decided on",
            "Oldest input of a deployment, and the autoscaler's last view. Above 5 s everything is "
            "held.",
            "s",
            [
                Query("max(forebay_input_age_seconds)", "oldest input"),
                Query("forebay_autoscaler_snapshot_age_seconds", "view of {{instance}}"),
            ],
            Look(width=8, thresholds=((None, "transparent"), (5, "red"))),
        ),
    ]


def _most(expr: str) -> Query:
    """Of the deployments that had most within the time shown, chosen once: lines stay whole."""
    most = f"topk({_MANY}, max_over_time(({expr})[$__range:$__interval] @ end()))"
    return Query(f"({expr}) and on (deployment) {most}", "{{deployment}}")


def _service(expr: str) -> Query:
    return Query(expr, "{{job}} {{instance}}")
