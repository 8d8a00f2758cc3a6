"""The dashboard of one deployment."""

from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.models import dashboard

from scripts.dashboards import panels
from scripts.dashboards.panels import REPLICA_LOOK, Look, Query, number, plot, quantiles

_D = '{deployment="$deployment"}'


def make() -> builders.Dashboard:
    """Puts it together."""
    made = (
        builders.Dashboard("Forebay: one deployment")
        .uid(panels.DEPLOYMENT_UID)
        .description("What one deployment was asked, what it did, and why it has so many replicas.")
        .tags([panels.TAG])
        .refresh("10s")
        .time("now-1h", "now")
        .tooltip(dashboard.DashboardCursorSync.CROSSHAIR)
        .readonly()
        .variables([*panels.data_sources(), _deployment()])
        .annotations(
            [
                panels.mark("Scaled up", "up", 'deployment="$deployment",', "green"),
                panels.mark("Scaled down", "down", 'deployment="$deployment",', "blue"),
                panels.mark("Held", "hold", 'deployment="$deployment",', "orange", shown=False),
            ]
        )
        .links(
            [
                panels.to_dashboard("The mesh", panels.MESH_UID, ""),
                panels.to_jaeger("Traces of ${deployment}", "${deployment}"),
            ]
        )
    )
    for title, row in (
        ("Now", _now()),
        ("Load", _load()),
        ("Times", _times()),
        ("Tasks and faults", _faults()),
        ("Memory and GPUs", _memory()),
    ):
        made.with_row(builders.Row(title))
        for panel in row:
            made.with_panel(panel)
    return made


def _deployment() -> builders.QueryVariable:
    return (
        builders.QueryVariable("deployment")
        .label("Deployment")
        .datasource(panels.PROMETHEUS)
        .query("label_values(forebay_request_timeout_seconds, deployment)")
        .refresh(dashboard.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(dashboard.VariableSort.ALPHABETICAL_ASC)
    )


def _now() -> list:
    return [
        number(
            "Queued",
            "Requests and tasks that no replica has taken yet.",
            "short",
            Query(f"forebay_queued_requests{_D} + forebay_queued_tasks{_D}", "queued"),
        ),
        number(
            "Oldest queued",
            "Age of the oldest request that waits. A dash: none waits.",
            "s",
            Query(f"forebay_oldest_queued_age_seconds{_D}", "age"),
            ((None, "green"), (5, "orange"), (30, "red")),
        ),
        number(
            "Ongoing",
            "Requests and tasks in replicas.",
            "short",
            Query(f"forebay_ongoing_requests{_D} + forebay_ongoing_tasks{_D}", "ongoing"),
        ),
        number(
            "Replicas ready",
            "Those that answer.",
            "short",
            Query('forebay_replicas{deployment="$deployment",state="ready"}', "ready"),
        ),
        number(
            "Without a place",
            "Replicas that fit on no node. `forebay status` says what is missing.",
            "short",
            Query(f"max(forebay_unplaced_replicas{_D})", "unplaced"),
            panels.BAD_ABOVE_ZERO,
        ),
        number(
            "Calls that fail",
            "Share of the routers' calls that ended as internal, aborted or unavailable.",
            "percentunit",
            Query(_ratio("internal|aborted|unavailable"), "failed"),
            ((None, "green"), (0.01, "orange"), (0.05, "red")),
        ),
    ]


def _load() -> list:
    return [
        plot(
            "Queued and ongoing",
            "Queued: stored and not yet delivered. Ongoing: delivered and not yet settled.",
            "short",
            [
                Query(f"forebay_queued_requests{_D}", "requests queued"),
                Query(f"forebay_ongoing_requests{_D}", "requests ongoing"),
                Query(f"forebay_queued_tasks{_D}", "tasks queued"),
                Query(f"forebay_ongoing_tasks{_D}", "tasks ongoing"),
            ],
        ),
        plot(
            "Replicas: target, assigned, ready",
            "Target: decided on. Assigned: bound to a node. The rest: as nodes report them.",
            "short",
            [
                *[
                    Query(f'forebay_replicas{{deployment="$deployment",state="{state}"}}', state)
                    for state in ("ready", "starting", "draining", "failed")
                ],
                Query(f"max(forebay_target_replicas{_D})", "target"),
                Query(f"max(forebay_assigned_replicas{_D})", "assigned"),
            ],
            REPLICA_LOOK,
        ),
        plot(
            "Arrivals and ends",
            "Arrivals above ends: the difference piles up in the queue.",
            "reqps",
            [
                Query(f"forebay_arrivals_per_second{_D}", "arrive"),
                Query(f"sum(rate(forebay_attempts_total{_D}[$__rate_interval]))", "end"),
            ],
        ),
        plot(
            "Outcomes of calls",
            "What callers of the routers were told.",
            "reqps",
            [
                Query(
                    f"sum by (outcome) (rate(forebay_router_calls_total{_D}[$__rate_interval]))",
                    "{{outcome}}",
                )
            ],
            Look(stacked=".*", colours={"^ok$": "green", "^internal$": "red"}),
        ),
    ]


def _times() -> list:
    return [
        plot(
            "Queue wait",
            "From stored to delivered. Dots are single requests: each leads to its trace.",
            "s",
            [
                *quantiles("forebay_queue_wait_seconds", _D),
                Query(f"forebay_desired_latency_seconds{_D}", "desired latency"),
            ],
            Look(colours={"desired latency": "red"}),
        ),
        plot(
            "Service time",
            "Inside the replica. Dots are single requests: each leads to its trace.",
            "s",
            quantiles("forebay_service_time_seconds", _D),
        ),
        plot(
            "Oldest queued request",
            "Near the timeout, callers give up before a replica takes it.",
            "s",
            [
                Query(f"forebay_oldest_queued_age_seconds{_D}", "oldest"),
                Query(f"forebay_request_timeout_seconds{_D}", "timeout"),
            ],
            Look(colours={"timeout": "red"}),
        ),
        plot(
            "Cold starts",
            "Mean time from a Triton's start to ready, over the replicas there are.",
            "s",
            [Query(f"forebay_replica_startup_seconds{_D}", "start to ready")],
        ),
    ]


def _faults() -> list:
    return [
        plot(
            "Attempts that ended badly",
            "Attempts of requests and tasks in replicas, by outcome, without ok.",
            "reqps",
            [
                Query(
                    'sum by (outcome) (rate(forebay_attempts_total{deployment="$deployment",'
                    'outcome!="ok"}[$__rate_interval]))',
                    "{{outcome}}",
                )
            ],
            Look(stacked=".*"),
        ),
        plot(
            "Dead letters and poison",
            "Tasks that became dead letters, requests that were set aside, in five minutes; and "
            "requests that are delivered again now.",
            "short",
            [
                Query(f"increase(forebay_dead_tasks_total{_D}[5m])", "dead letters"),
                Query(f"increase(forebay_poison_requests_total{_D}[5m])", "poison"),
                Query(f"forebay_redelivered_requests{_D}", "delivered again"),
            ],
        ),
        plot(
            "Tasks submitted",
            "As the routers stored or refused them.",
            "reqps",
            [
                Query(
                    "sum by (outcome) (rate("
                    f"forebay_router_submitted_tasks_total{_D}[$__rate_interval]))",
                    "{{outcome}}",
                )
            ],
            Look(stacked=".*", colours={"^ok$": "green"}),
        ),
        plot(
            "Scale decisions",
            "Made in a minute. Up and down in turns: it flaps.",
            "short",
            [
                Query(
                    f"sum by (direction) (increase(forebay_scale_decisions_total{_D}[1m]))",
                    "{{direction}}",
                )
            ],
            Look(colours={"^up$": "green", "^down$": "blue", "^hold$": "orange"}),
        ),
    ]


def _memory() -> list:
    return [
        plot(
            "Memory of its Tritons",
            "Resident, with their children, over all replicas.",
            "bytes",
            [Query(f"forebay_replica_resident_memory_bytes{_D}", "resident")],
            Look(width=8),
        ),
        plot(
            "GPU memory of its replicas",
            "As measured, of all replicas and of the one that holds most; and what one declares.",
            "bytes",
            [
                Query(f"forebay_replica_gpu_memory_used_bytes{_D}", "all"),
                Query(f"forebay_replica_max_gpu_memory_used_bytes{_D}", "largest"),
                Query(f"forebay_replica_gpu_memory_declared_bytes{_D}", "declared"),
            ],
            Look(width=8, colours={"declared": "red"}),
        ),
        plot(
            "GPU utilisation",
            "Of the GPUs that its replicas hold, with whatever else runs on them.",
            "percentunit",
            [
                Query(
                    f"forebay_gpu_utilization_ratio and on (node, gpu) forebay_gpu_replicas{_D}",
                    "{{node}} {{gpu}}",
                )
            ],
            Look(width=8, most=1),
        ),
    ]


def _ratio(outcomes: str) -> str:
    calls = 'rate(forebay_router_calls_total{deployment="$deployment"%s}[5m])'
    bad = calls % f',outcome=~"{outcomes}"'
    return f"sum({bad}) / sum({calls % ''})"
