"""`forebay explain`: one scale decision, step by step."""

from google.protobuf.message import Message

from forebay import addresses
from forebay.cli.decisions import newest
from forebay.cli.failure import NOT_FOUND, USAGE, CliError
from forebay.cli.link import Link, Where, link_to
from forebay.cli.output import Output, count_of, print_json, print_table, to_plain
from forebay.cli.scaling_words import change, long_scaling, rule_word, short_name, when
from forebay.cli.show import resource_name
from forebay.stubs import autoscaler_service
from forebay.v1.autoscaler_pb2 import GetScaleDecisionRequest
from forebay.v1.scaling_pb2 import ScaleDecision

NOT_KNOWN = "not known"

_INPUTS = (
    ("queued", "queued_count", ""),
    ("ongoing", "ongoing_count", ""),
    ("of these redelivered", "redelivered_count", ""),
    ("mean load", "mean_load", ""),
    ("mean load with redelivered", "mean_held_load", ""),
    ("mean service time", "service_time_s", " s"),
    ("arrivals per second", "arrivals_per_second", ""),
    ("queue wait p95", "queue_wait_p95_s", " s"),
    ("poison", "poison_count", ""),
    ("age of the oldest input", "age_s", " s"),
    ("replicas assigned", "assigned_replica_count", ""),
    ("replicas ready", "ready_replica_count", ""),
    ("replicas starting", "starting_replica_count", ""),
    ("replicas that do not start", "unstartable_replica_count", ""),
)


async def run(decision: str, where: Where, output: Output) -> None:
    """Prints a decision with its inputs, its steps and what would have changed it.

    Args:
        decision: `deployments/x/decisions/y`, `x/y`, or `x` for the newest of x.
        where: the mesh.
        output: how.

    Raises:
        CliError: if there is no such decision, or nothing can be called so.
    """
    deployment, number = _parts(decision)
    parent = resource_name(deployment)
    async with link_to(addresses.AUTOSCALER, where) as autoscaler:
        if number:
            found = await _get(f"{parent}/decisions/{number}", deployment, autoscaler)
        else:
            found = await _latest(parent, deployment, autoscaler)
    if output is Output.JSON:
        print_json(to_plain(found))
    else:
        _print(found)


def _parts(decision: str) -> tuple[str, str]:
    match decision.split("/"):
        case ["deployments", deployment, "decisions", number] if number:
            return deployment, number
        case [deployment, number] if number and deployment != "deployments":
            return deployment, number
        case [deployment]:
            return deployment, ""
    raise CliError(
        f"{decision} cannot name a decision: write NAME/NUMBER as `forebay decisions` shows it, or "
        "NAME for the newest one of a deployment",
        USAGE,
    )


async def _get(name: str, deployment: str, autoscaler: Link) -> ScaleDecision:
    service = autoscaler_service(autoscaler.channel)
    try:
        answer = await autoscaler.call(service.GetScaleDecision, GetScaleDecisionRequest(name=name))
    except CliError as error:
        if error.exit_code != NOT_FOUND:
            raise
        raise CliError(
            f"there is no decision {name}, or it is not kept any more. `forebay decisions "
            f"{deployment}` shows those there are.",
            NOT_FOUND,
        ) from None
    found: ScaleDecision = answer.scale_decision
    return found


async def _latest(parent: str, deployment: str, autoscaler: Link) -> ScaleDecision:
    found = await newest(parent, 1, autoscaler)
    if not found:
        raise CliError(
            f"no decision on {deployment} is kept. `forebay list` shows what is deployed.",
            NOT_FOUND,
        )
    return found[0]


def _print(decision: ScaleDecision) -> None:
    print_table((f"{short_name(decision)}", change(decision)), _facts(decision))
    print_table(("\nSEEN", "\nVALUE"), [*_inputs(decision)])
    print_table(
        ("\nSTEP", "\nREPLICAS", "\nWHAT IT DID"),
        [(step.step, f"{step.replica_count:g}", step.sentence) for step in decision.steps],
        empty="no steps were kept",
    )


def _facts(decision: ScaleDecision) -> list[tuple[str, str]]:
    before, after = decision.target_before, decision.target_after
    said = count_of(after, "replica")
    facts = [
        ("decided", when(decision)),
        ("target", said if before == after else f"{said}, before {before}"),
        ("applied", "yes" if decision.applied else "no: the policy is advisory"),
        ("rule", rule_word(decision)),
        ("why", decision.reason),
        ("otherwise if", decision.flip or "nothing seen would have changed it"),
    ]
    if decision.HasField("pinned_replicas"):
        facts.append(("pinned", count_of(decision.pinned_replicas, "replica")))
    if decision.HasField("policy"):
        facts.append(("policy", long_scaling(decision.policy)))
    else:
        facts.append(("policy", f"none: fixed at {count_of(decision.fixed_replicas, 'replica')}"))
    facts.append(("slots of a replica", str(decision.max_ongoing_requests)))
    return facts


def _inputs(decision: ScaleDecision) -> list[tuple[str, str]]:
    signals = decision.signals
    rows = [(title, _value(signals, field, unit)) for title, field, unit in _INPUTS]
    if signals.window_min_replicas:
        rows.append(("min_replicas of an open window", str(signals.window_min_replicas)))
    if signals.custom_error:
        rows.append(("custom policy", signals.custom_error))
    elif signals.HasField("custom_replica_count"):
        rows.append(("custom policy", f"{signals.custom_replica_count:g}"))
    return rows


def _value(signals: Message, field: str, unit: str) -> str:
    if signals.DESCRIPTOR.fields_by_name[field].has_presence and not signals.HasField(field):
        return NOT_KNOWN
    return f"{getattr(signals, field):g}{unit}"
