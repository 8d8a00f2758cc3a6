"""What is said of values in a deployment file that are not legal. Pure."""

import difflib
import re
from typing import Any

from pydantic import BaseModel, ValidationError

from forebay import resources_file, scaling_file, volumes_file
from forebay.deployment_yaml import Problem, Text
from forebay.renamed_keys import Renamed
from services.wire import deployment_words as words

LEGAL = {
    "name": "1 to 63 of a-z, 0-9 and '-', starting with a letter and not ending with '-'",
    "model": "path of a Triton model directory, relative to this file",
    "replicas": "a whole number from 0 to 1000",
    "scaling": "a mapping such as {min_replicas: 0, max_replicas: 4}",
    **{f"scaling.{key}": legal for key, legal in scaling_file.LEGAL.items()},
    **{f"scaling.policies.{key}": legal for key, legal in scaling_file.LEGAL.items()},
    **{f"scaling.windows.{key}": legal for key, legal in scaling_file.LEGAL_IN_WINDOWS.items()},
    "scaling.policies.policy": "ongoing_requests, queue_depth, request_latency, queue_size or "
    "custom",
    **resources_file.LEGAL,
    **volumes_file.LEGAL,
    "placement": "compact or spread",
    "image": words.LEGAL_IMAGE,
    "max_ongoing_requests": "a whole number from 1 to 1024",
    "request_timeout_s": "seconds from 0.001 to 86400",
    "max_queued_requests": "a whole number from 1 to 1000000",
    "canary": "zeros or off",
}

_MODELS: dict[str, type[BaseModel]] = {
    "resources": resources_file.Resources,
    "scaling": scaling_file.ScalingSpec,
    "scaling.policies": scaling_file.InnerPolicy,
    "scaling.windows": scaling_file.WindowSpec,
    "volumes.*": volumes_file.VolumeOptions,
}
_MAX_SHOWN_CHARACTERS = 80


def explain(error: ValidationError, top: type[BaseModel], text: Text, names: Renamed) -> list[str]:
    """What is wrong, one sentence or two for each value.

    Args:
        error: what the validation found.
        top: model of the whole file.
        text: what was read.
        names: how its keys are called here.
    """
    return [_explain_one(problem, top, text, names) for problem in error.errors(include_url=False)]


def _explain_one(problem: Any, top: type[BaseModel], text: Text, names: Renamed) -> str:
    # The last part of a wrong key of a map says that the key is meant.
    key = ".".join(str(part) for part in problem["loc"] if part != "[key]")
    kind, value = problem["type"], problem["input"]
    written = names.in_file(key)
    if kind == "missing":
        sentence = f"is missing; legal is {_legal(key)}"
    elif kind == "extra_forbidden":
        return f"{text.where(written)}: unknown key {written} = {_shown(value)}; " + _known(
            key, top
        )
    else:
        sentence = f"{_is(key, value)}; {_guess(problem)}legal is {_legal(key) or problem['msg']}"
    return text.told(Problem(written, sentence), names.called(key))


def _is(key: str, value: object) -> str:
    if key.partition(".")[0] != "environment":
        return f"= {_shown(value)}"
    # The values may be secrets.
    if isinstance(value, dict | list):
        return f"is a {type(value).__name__} of {len(value)}"
    return f"is {type(value).__name__}, not text"


def _legal(key: str) -> str:
    """What is legal for a key, or for the values of the map that it is in."""
    plain = _plain(key)
    return LEGAL.get(plain) or LEGAL.get(f"{plain.rpartition('.')[0]}.*", "")


def _guess(problem: Any) -> str:
    """A question if a word is nearly one of the legal ones."""
    if problem["type"] != "literal_error" or not isinstance(problem["input"], str):
        return ""
    words = re.findall(r"'(\w+)'", problem["ctx"]["expected"])
    return _question(difflib.get_close_matches(problem["input"], words, n=1))


def _known(key: str, top: type[BaseModel]) -> str:
    """The keys there are beside an unknown one, and which was probably meant."""
    parent, _, last = key.rpartition(".")
    model = _MODELS.get(_plain(parent), top)
    fields = list(model.model_fields)
    close = [f"{name}.{last}" for name, other in _MODELS.items() if last in other.model_fields][:1]
    close = close or difflib.get_close_matches(last, fields, n=1)
    if not close and last in top.model_fields:
        close = [f"{last}, not under {parent}"]
    return f"{_question(close)}legal keys are {', '.join(fields)}"


def _question(close: list[str]) -> str:
    return f"did you mean {close[0]}? " if close else ""


def _plain(key: str) -> str:
    """A key without the numbers of items and the names of volumes."""
    return re.sub(r"^(volumes)\.[^.]+", r"\1.*", re.sub(r"\.[0-9]+(?=\.|$)", "", key))


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _MAX_SHOWN_CHARACTERS else f"{text[: _MAX_SHOWN_CHARACTERS - 1]}…"
