"""The JSON Schema of deployment files, for editors: every key, also under its old names. Pure."""

from collections.abc import Mapping
from typing import Any

from forebay import renamed_keys
from forebay.deployment_file import DeploymentSpec


def schema() -> dict[str, Any]:
    """The JSON Schema; keys under names they have elsewhere are in it as deprecated."""
    result: dict[str, Any] = _without_null(DeploymentSpec.model_json_schema())
    parts, top = result["$defs"], result["properties"]
    top[renamed_keys.RAYS_SCALING] = {**top["scaling"], "description": "Ray's name for scaling."}
    _add_old_names(top, renamed_keys.TOP_LEVEL)
    _add_old_names(parts["ScalingSpec"]["properties"], renamed_keys.SCALING)
    _add_old_names(parts["InnerPolicy"]["properties"], renamed_keys.POLICY)
    exclusive = ("replicas", "scaling", renamed_keys.RAYS_SCALING)
    pairs = [[one, other] for n, one in enumerate(exclusive) for other in exclusive[n + 1 :]]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **result,
        "title": "Forebay deployment",
        "allOf": [{"not": {"required": pair}} for pair in pairs],
    }


def _add_old_names(properties: dict[str, Any], names: Mapping[str, tuple[str, ...]]) -> None:
    for old, new_names in names.items():
        properties[old] = {
            **properties[new_names[0]],
            "description": f"Called {' and '.join(new_names)} here.",
            "deprecated": True,
        }


def _without_null(value: Any) -> Any:
    """A schema in which a key that may be left out may not be null instead."""
    if isinstance(value, list):
        return [_without_null(item) for item in value]
    if not isinstance(value, dict):
        return value
    result = {
        key: _without_null(item)
        for key, item in value.items()
        if not (key == "default" and item is None)
    }
    kinds = [kind for kind in result.get("anyOf", ()) if kind != {"type": "null"}]
    if len(kinds) == 1:
        del result["anyOf"]
        result = {**kinds[0], **result}
    return result
