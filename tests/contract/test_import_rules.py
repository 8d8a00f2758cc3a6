"""Who may import what."""

import ast
import re
from pathlib import Path

from tests.contract.tree import ROOT, imports, name_of, parse, python_files

SHARED = ("wire", "runtime")

# Modules that must say that they are pure, as any other may: `Pure:` or `Pure.` in the docstring.
PURE = (
    "forebay/batch_files/row_tensors.py",
    "forebay/batch_files/rows.py",
    "forebay/batch_files/schema.py",
    "forebay/task_client/groups.py",
    "forebay/task_client/options.py",
    "forebay/task_client/patience.py",
    "forebay/task_client/plan.py",
    "forebay/task_client/positions.py",
    "forebay/task_client/requests.py",
    "forebay/task_client/status.py",
    "forebay/task_client/turns.py",
    "services/autoscaler/callbacks/addresses.py",
    "services/autoscaler/callbacks/hosts.py",
    "services/autoscaler/callbacks/message.py",
    "services/autoscaler/callbacks/retries.py",
    "services/autoscaler/lease.py",
    "services/autoscaler/assignments.py",
    "services/autoscaler/capacity.py",
    "services/autoscaler/consolidation.py",
    "services/autoscaler/decision_counts.py",
    "services/autoscaler/cordon.py",
    "services/autoscaler/demand.py",
    "services/autoscaler/gpu_use.py",
    "services/autoscaler/roster.py",
    "services/autoscaler/view.py",
    "services/autoscaler/placement.py",
    "services/autoscaler/plan.py",
    "services/autoscaler/presence.py",
    "services/autoscaler/rollout.py",
    "services/autoscaler/schedules/due.py",
    "services/autoscaler/schedules/history.py",
    "services/autoscaler/schedules/rules.py",
    "services/autoscaler/simulation/agenda.py",
    "services/autoscaler/simulation/calm.py",
    "services/autoscaler/simulation/deployed.py",
    "services/autoscaler/simulation/invariants.py",
    "services/autoscaler/simulation/machines.py",
    "services/autoscaler/simulation/mesh.py",
    "services/autoscaler/simulation/observation.py",
    "services/autoscaler/simulation/ownership.py",
    "services/autoscaler/simulation/pulse.py",
    "services/autoscaler/simulation/recovery.py",
    "services/autoscaler/simulation/requests.py",
    "services/autoscaler/simulation/service_times.py",
    "services/autoscaler/simulation/tally.py",
    "services/autoscaler/simulation/traces.py",
    "services/autoscaler/simulation/sim_autoscaler.py",
    "services/autoscaler/simulation/sim_node.py",
    "services/autoscaler/simulation/startup.py",
    "services/autoscaler/simulation/store.py",
    "services/autoscaler/simulation/upcoming.py",
    "services/autoscaler/simulation/users.py",
    "services/autoscaler/simulation/watched.py",
    "services/autoscaler/simulation/world.py",
    "services/autoscaler/status.py",
    "services/autoscaler/scaling/decide.py",
    "services/autoscaler/scaling/declared.py",
    "services/autoscaler/scaling/explain.py",
    "services/autoscaler/scaling/load_window.py",
    "services/autoscaler/scaling/policies.py",
    "services/autoscaler/scaling/record.py",
    "services/autoscaler/scaling/rules.py",
    "services/autoscaler/scaling/scaler.py",
    "services/autoscaler/scaling/signals.py",
    "services/autoscaler/scaling/windows.py",
    "services/autoscaler/scaling/wishes.py",
    "services/autoscaler/usage/account.py",
    "services/autoscaler/usage/notes.py",
    "services/autoscaler/usage/whereabouts.py",
    "services/autoscaler/tasks/findings.py",
    "services/wire/cron.py",
    "services/wire/instants.py",
    "services/wire/kept.py",
    "services/wire/protobuf_scan.py",
    "services/wire/request_check.py",
    "services/wire/shared_gpus.py",
    "services/wire/tenants.py",
    "services/runtime/trace_words.py",
    "services/wire/tasks/attempt_context.py",
    "services/wire/tasks/states.py",
    "services/wire/tasks/submission.py",
    "services/wire/tasks/subjects.py",
    "services/router/tasks/selection.py",
    "services/launcher/allow_list.py",
    "services/launcher/container_state.py",
    "services/launcher/environment_template.py",
    "services/launcher/gpu_devices.py",
    "services/launcher/log_frames.py",
    "services/launcher/pull_progress.py",
    "services/launcher/reasons.py",
    "services/launcher/refusal.py",
    "services/launcher/request_check.py",
    "services/launcher/template.py",
    "services/metrics/arrivals.py",
    "services/metrics/declared.py",
    "services/metrics/exemplars.py",
    "services/metrics/gpu_figures.py",
    "services/metrics/histogram_text.py",
    "services/metrics/load_metrics.py",
    "services/metrics/node_metrics.py",
    "services/metrics/stream_metrics.py",
    "services/metrics/loads.py",
    "services/metrics/nodes.py",
    "services/metrics/page/answers.py",
    "services/metrics/page/history.py",
    "services/metrics/page/points.py",
    "services/metrics/page/trouble.py",
    "services/metrics/poll_schedule.py",
    "services/metrics/refusals.py",
    "services/metrics/report_check.py",
    "services/metrics/dead_tasks.py",
    "services/metrics/task_lanes.py",
    "services/metrics/window.py",
    "services/node_agent/triton/canary.py",
    "services/node_agent/containers/ends.py",
    "services/node_agent/credit.py",
    "services/node_agent/gpus/health.py",
    "services/node_agent/gpus/known.py",
    "services/node_agent/gpus/reading.py",
    "services/node_agent/gpus/users.py",
    "services/node_agent/gpus/xids.py",
    "services/wire/http2/client/replies.py",
    "services/wire/http2/frames.py",
    "services/node_agent/triton/instance_groups.py",
    "services/node_agent/traces/recent_calls.py",
    "services/node_agent/reconcile.py",
    "services/node_agent/replica_environment.py",
    "services/node_agent/replica_states.py",
    "services/node_agent/restart_policy.py",
    "services/node_agent/traces/trace_names.py",
    "services/node_agent/tasks/lanes.py",
    "services/node_agent/tasks/line.py",
    "services/node_agent/tasks/records.py",
    "services/node_agent/tasks/retry_policy.py",
    "services/node_agent/tasks/slots.py",
    "services/node_agent/tasks/timeout_parameter.py",
    "services/node_agent/tasks/usage.py",
    "services/wire/http2/client/unary_calls.py",
    "services/wire/http2/server/call_fields.py",
    "services/wire/http2/server/call_stream.py",
    "services/wire/http2/server/call_streams.py",
    "services/wire/http2/server/known_fields.py",
    "services/wire/http2/server/messages.py",
    "services/wire/http2/server/replies.py",
    "services/wire/http2/server/sending.py",
    "services/wire/http2/server/uploads.py",
    "services/node_agent/simulated_gpus.py",
)

SIMULATES = ("forebay/cli/simulate.py", "forebay/cli/simulate_report.py")

IMPURE = ("asyncio", "grpc", "nats", "time")


def _says_pure(file: Path) -> bool:
    return re.search(r"\bPure[:.]", ast.get_docstring(parse(file)) or "") is not None


def _is(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


def test_services_do_not_import_each_other() -> None:
    services = {p.name for p in (ROOT / "services").iterdir() if (p / "__init__.py").is_file()}
    found = []
    for service in sorted(services - set(SHARED)):
        others = [f"services.{other}" for other in services - {service, *SHARED}]
        for file in python_files(f"services/{service}"):
            found += [
                f"{name_of(file)}:{line} imports {name}"
                for line, name in imports(file)
                if any(_is(name, other) for other in others)
            ]
    assert not found


def test_wire_and_runtime_import_no_service_and_no_client() -> None:
    found = []
    for file in python_files("services/wire", "services/runtime"):
        for line, name in imports(file):
            allowed = name.startswith(("services.wire", "services.runtime", "forebay.v1"))
            if name.startswith(("services.", "forebay")) and not allowed:
                found.append(f"{name_of(file)}:{line} imports {name}")
    assert not found


def test_runtime_does_not_import_wire() -> None:
    found = [
        f"{name_of(file)}:{line} imports {name}"
        for file in python_files("services/runtime")
        for line, name in imports(file)
        if _is(name, "services.wire")
    ]
    assert not found


def test_clients_import_no_service() -> None:
    """What users import talks to services over gRPC; only the local mesh starts them.

    The simulator is the exception: it runs the autoscaler's decisions in the command itself.
    """
    found = []
    for file in python_files("forebay"):
        allowed = ["services.wire", "services.runtime"]
        if name_of(file) in SIMULATES:
            allowed.append("services.autoscaler.simulation")
        for line, name in imports(file):
            if name.startswith("services.") and not name.startswith(tuple(allowed)):
                found.append(f"{name_of(file)}:{line} imports {name}")
    assert not found


def test_modules_marked_pure_import_nothing_that_waits_or_talks() -> None:
    found = []
    for file in python_files("services", "forebay"):
        if not _says_pure(file):
            continue
        found += [
            f"{name_of(file)}:{line} imports {name}"
            for line, name in imports(file)
            if any(_is(name, package) for package in IMPURE)
        ]
    assert not found


def test_modules_that_must_be_pure_say_so() -> None:
    assert not [name for name in PURE if not _says_pure(ROOT / name)]
