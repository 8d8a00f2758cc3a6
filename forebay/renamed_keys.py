"""Keys of a deployment file under the names that other systems use or used for them. Pure.

What means the same is taken, with a note that says its name here. What has no counterpart is
refused with the reason.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from forebay.deployment_yaml import Problem

RAYS_SCALING = "autoscaling_config"
"""Ray's name for `scaling`, which it shares with nothing else: taken without a note."""

TOP_LEVEL = {
    "max_concurrent_queries": ("max_ongoing_requests",),
    "num_replicas": ("replicas",),
}
POLICY = {
    "target_num_ongoing_requests_per_replica": ("target_ongoing_requests",),
    "tasks_per_container": ("max_tasks_per_replica",),
    "desired_latency": ("desired_latency_s",),
}
SCALING = {
    **POLICY,
    "smoothing_factor": ("upscaling_factor", "downscaling_factor"),
    "upscale_smoothing_factor": ("upscaling_factor",),
    "downscale_smoothing_factor": ("downscaling_factor",),
    "min_containers": ("min_replicas",),
    "max_containers": ("max_replicas",),
    "idle_time_s": ("downscale_delay_s", "downscale_to_zero_delay_s"),
    "keep_warm_seconds": ("downscale_delay_s", "downscale_to_zero_delay_s"),
}

_NOT_AT_TOP_LEVEL = {
    "ray_actor_options": "what a replica needs is said under resources: gpus, cpus, memory_bytes, "
    "accelerator_type and custom; variables under environment",
    "autoscaler": "how replicas follow the load is said under scaling",
}
_NOT_IN_SCALING = {
    "metrics_interval_s": "signals come with every report of a node; how often that is says the "
    "setting report_interval_s of forebay-metrics",
    "metrics_interval": "signals come with every report of a node; how often that is says the "
    "setting report_interval_s of forebay-metrics",
    "target_groups": "all replicas of a deployment are alike; make a deployment of each group",
    "aggregation_function": "ongoing_requests goes by the mean; queue_depth and queue_size go by "
    "the load of the instant",
}


@dataclass(slots=True)
class Renamed:
    """A file's values under the names that keys have here.

    Attributes:
        values: the values.
        written: path that a key has in the file, by its path here.
        scaling_key: `scaling`, or what the file calls it.
        notes: what is called otherwise here.
        problems: what cannot be taken.
    """

    values: dict[Any, Any]
    written: dict[str, str] = field(default_factory=dict)
    scaling_key: str = "scaling"
    notes: list[Problem] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    def in_file(self, path: str) -> str:
        """The path in the file of a key with a path here."""
        if path in self.written:
            return self.written[path]
        first, dot, rest = path.partition(".")
        return f"{self.scaling_key}{dot}{rest}" if first == "scaling" else path

    def called(self, path: str) -> str:
        """What a key with a path here is called here, if the file calls it otherwise."""
        return path.rpartition(".")[2] if path in self.written else ""


def renamed(values: Mapping[Any, Any]) -> Renamed:
    """The values under the names that keys have here.

    Args:
        values: as read; may be anything that YAML can say.
    """
    result = Renamed(dict(values))
    _refuse(result, result.values, "", _NOT_AT_TOP_LEVEL)
    _rename(result, result.values, "", "", TOP_LEVEL)
    if RAYS_SCALING in result.values:
        _take_rays_scaling(result)
    if isinstance(result.values.get("scaling"), dict):
        scaling = result.values["scaling"] = dict(result.values["scaling"])
        key = result.scaling_key
        _refuse(result, scaling, f"{key}.", _NOT_IN_SCALING)
        _rename(result, scaling, "scaling.", f"{key}.", SCALING)
        if isinstance(scaling.get("policies"), list):
            scaling["policies"] = list(_policies(result, scaling["policies"]))
    return result


def _take_rays_scaling(result: Renamed) -> None:
    if "scaling" in result.values:
        sentence = f"and scaling say the same thing; drop {RAYS_SCALING}"
        result.problems.append(Problem(RAYS_SCALING, sentence))
        del result.values[RAYS_SCALING]
        return
    result.values["scaling"] = result.values.pop(RAYS_SCALING)
    result.scaling_key = RAYS_SCALING


def _policies(result: Renamed, policies: list[Any]) -> Iterator[Any]:
    for index, policy in enumerate(policies):
        if not isinstance(policy, dict):
            yield policy
            continue
        copied = dict(policy)
        path = f"policies.{index}."
        _refuse(result, copied, f"{result.scaling_key}.{path}", _NOT_IN_SCALING)
        _rename(result, copied, f"scaling.{path}", f"{result.scaling_key}.{path}", POLICY)
        yield copied


def _refuse(
    result: Renamed, mapping: dict[Any, Any], prefix: str, reasons: Mapping[str, str]
) -> None:
    for key, reason in reasons.items():
        if key in mapping:
            del mapping[key]
            sentence = f"has no counterpart here: {reason}"
            result.problems.append(Problem(f"{prefix}{key}", sentence))


def _rename(
    result: Renamed,
    mapping: dict[Any, Any],
    prefix: str,
    file_prefix: str,
    names: Mapping[str, tuple[str, ...]],
) -> None:
    for old, new_names in names.items():
        if old not in mapping:
            continue
        value, written = mapping.pop(old), f"{file_prefix}{old}"
        taken = [new for new in new_names if new in mapping]
        for new in taken:
            other = result.in_file(f"{prefix}{new}")
            sentence = f"and {other} say the same thing, here called {new}; drop {old}"
            result.problems.append(Problem(written, sentence))
        for new in new_names:
            if new not in taken:
                mapping[new] = value
                result.written[f"{prefix}{new}"] = written
        result.notes.append(Problem(written, f"is called {' and '.join(new_names)} here"))
