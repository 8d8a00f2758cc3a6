"""The `volumes` part of a deployment file: names, or `name: {read_only: true}`."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, Field

from forebay.deployment_yaml import Problem
from forebay.scaling_file import STRICT
from forebay.v1.deployment_pb2 import VolumeMount
from services.wire import deployment_words as words

LEGAL = {
    "volumes": f"a list of at most {words.MAX_VOLUMES} volumes, each a name such as data or, to "
    "only read it, data: {read_only: true}",
    "volumes.*": "left out, or {read_only: true}",
    "volumes.*.read_only": "true or false",
}


class VolumeOptions(BaseModel):
    """How replicas see a volume."""

    model_config = STRICT

    read_only: bool = Field(default=False, description="Whether replicas may only read it.")


def _item(value: object) -> object:
    """An item of the list as a mapping of its one name to its options.

    Raises:
        ValueError: if it is neither a name nor such a mapping.
    """
    if isinstance(value, str):
        return {value: {}}
    if isinstance(value, dict) and len(value) == 1:
        # `- data:` with nothing after it is the name alone.
        return {name: {} if options is None else options for name, options in value.items()}
    raise ValueError("neither a name nor a name with options")


VolumeItem = Annotated[
    dict[str, VolumeOptions],
    BeforeValidator(_item, json_schema_input_type=str | dict[str, VolumeOptions]),
]
"""One volume of a deployment file: its name, with its options."""


def volume_problems(items: Sequence[Mapping[str, VolumeOptions]]) -> Iterator[Problem]:
    """What is wrong with volumes that are each written in the right way."""
    lines: dict[str, int] = {}
    for index, name in enumerate(_names(items)):
        key = f"volumes.{index}"
        if not words.is_volume(name):
            yield Problem(key, f"= {name!r} cannot name a volume; legal is {words.LEGAL_VOLUME}")
        elif name in lines:
            yield Problem(
                key, f"= {name!r} is named before, as volumes.{lines[name]}; leave one of them out"
            )
        else:
            lines[name] = index


def mounts(items: Sequence[Mapping[str, VolumeOptions]]) -> list[VolumeMount]:
    """The volumes as the autoscaler takes and keeps them: by name."""
    found = {name: options.read_only for item in items for name, options in item.items()}
    return [VolumeMount(name=name, read_only=found[name]) for name in sorted(found)]


def _names(items: Sequence[Mapping[str, VolumeOptions]]) -> Iterator[str]:
    for item in items:
        yield from item
