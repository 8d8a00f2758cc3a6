"""The YAML file that declares a deployment; its errors name file, line, key, value and what is legal.

Relative paths in it are relative to the file.
"""  # noqa: E501

import difflib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from forebay.v1.deployment_pb2 import Canary, Deployment, ReplicaResources
from services.wire.names import InvalidNameError, check_id, deployment_name

FILE_NAMES = ("deployment.yaml", "deployment.yml")

_STRICT = ConfigDict(extra="forbid", frozen=True, strict=True)

_LEGAL = {
    "name": "1 to 63 of a-z, 0-9 and '-', starting with a letter and not ending with '-'",
    "model": "path of a Triton model directory, relative to this file",
    "replicas": "a whole number from 0 to 1000",
    "resources": "a mapping with gpus and gpu_memory_bytes",
    "resources.gpus": "0, a fraction of one GPU such as 0.5, or a whole number up to 64",
    "resources.gpu_memory_bytes": "a whole number of bytes, 0 or more",
    "max_ongoing_requests": "a whole number from 1 to 1024",
    "request_timeout_s": "seconds from 0.001 to 86400",
    "max_queued_requests": "a whole number from 1 to 1000000",
    "canary": "zeros or off",
}


class DeploymentFileError(Exception):
    """The file is wrong; the text says where, and what is legal."""


class Resources(BaseModel):
    """What one replica needs of its node."""

    model_config = _STRICT

    gpus: float = Field(
        default=0.0,
        ge=0,
        le=64,
        description="GPUs: a whole number, or a fraction of one. 0 runs on a CPU slot.",
    )
    gpu_memory_bytes: int = Field(
        default=0, ge=0, description="GPU memory the model needs; 0 means not declared."
    )

    @field_validator("gpus")
    @classmethod
    def _whole_or_fraction(cls, value: float) -> float:
        if value > 1 and value != int(value):
            raise ValueError("neither a whole number nor a fraction of one GPU")
        return value


class DeploymentSpec(BaseModel):
    """A model served under a name, with the resources of one replica."""

    model_config = _STRICT

    name: str = Field(
        description="Name clients call: 1 to 63 of a-z, 0-9 and '-', starting with a letter and "
        "not ending with '-'."
    )
    model: str = Field(
        min_length=1,
        description="Triton model directory (config.pbtxt and versions), relative to this file.",
    )
    replicas: int = Field(default=1, ge=0, le=1000, description="How many replicas run.")
    resources: Resources = Field(
        default=Resources(), description="What one replica needs of its node."
    )
    max_ongoing_requests: int = Field(
        default=8, ge=1, le=1024, description="Requests one replica works on at once."
    )
    request_timeout_s: float = Field(
        default=60.0,
        ge=0.001,
        le=86400,
        description="Seconds a call without a deadline gets, and the longest one attempt may run.",
    )
    max_queued_requests: int = Field(
        default=1000,
        ge=1,
        le=1_000_000,
        description="Requests that may wait or run through one router.",
    )
    canary: Literal["zeros", "off"] = Field(
        default="zeros",
        description="Inference a replica must pass before it takes requests: inputs of zeros and "
        "empty strings, or none, for models that refuse zeros.",
    )

    @field_validator("name")
    @classmethod
    def _may_name_a_deployment(cls, value: str) -> str:
        try:
            return check_id(value, "deployment")
        except InvalidNameError:
            raise ValueError("not a name") from None

    def to_proto(self, model_digest: str) -> Deployment:
        """The deployment as the autoscaler takes it."""
        deployment = Deployment(
            name=deployment_name(self.name),
            model_digest=model_digest,
            replicas=self.replicas,
            resources=ReplicaResources(
                gpus=self.resources.gpus, gpu_memory_bytes=self.resources.gpu_memory_bytes
            ),
            max_ongoing_requests=self.max_ongoing_requests,
            max_queued_requests=self.max_queued_requests,
            canary=Canary(mode=Canary.MODE_OFF if self.canary == "off" else Canary.MODE_ZEROS),
        )
        deployment.request_timeout.FromMilliseconds(round(self.request_timeout_s * 1000))
        return deployment


@dataclass(frozen=True, slots=True)
class DeploymentFile:
    """A deployment file that was read.

    Attributes:
        path: the file.
        spec: what it declares.
        model_directory: the Triton model directory it names.
    """

    path: Path
    spec: DeploymentSpec
    model_directory: Path


def load(path: Path) -> DeploymentFile:
    """Reads a deployment file.

    Args:
        path: the file, or a directory with a `deployment.yaml`.

    Raises:
        DeploymentFileError: if it cannot be read or is not legal.
    """
    if path.is_dir():
        path = _in_directory(path)
    spec, lines = parse(_read(path), str(path))
    directory = path.parent / spec.model
    if not (directory / "config.pbtxt").is_file():
        reason = "has no config.pbtxt" if directory.is_dir() else "is not there"
        raise DeploymentFileError(
            f"{path}:{lines.get('model', 1)}: model = {spec.model!r}: {directory} {reason}; legal "
            f"is a {_LEGAL['model'].removesuffix(', relative to this file')} with config.pbtxt"
        )
    return DeploymentFile(path, spec, directory)


def parse(text: str, source: str) -> tuple[DeploymentSpec, dict[str, int]]:
    """The deployment a text declares, and the line of each key by its dotted path.

    Args:
        text: YAML.
        source: name of the text in errors.

    Raises:
        DeploymentFileError: if the text is not legal.
    """
    try:
        node = yaml.compose(text, Loader=_Loader)
        if not isinstance(node, yaml.MappingNode):
            raise DeploymentFileError(
                f"{source}:1: a deployment file is a mapping of keys to values; legal keys are "
                f"{', '.join(DeploymentSpec.model_fields)}"
            )
        lines = _lines(node, source)
        values = yaml.load(text, Loader=_Loader)  # noqa: S506, a SafeLoader
    except yaml.YAMLError as error:
        raise DeploymentFileError(_explain_yaml(error, source)) from error
    try:
        return DeploymentSpec.model_validate(values), lines
    except ValidationError as error:
        raise DeploymentFileError(_explain(error, source, lines)) from error


class _Loader(yaml.SafeLoader):
    """Safe YAML in which on, off, yes and no are words, as in YAML 1.2."""

    yaml_implicit_resolvers = {  # noqa: RUF012, declared by the base class
        first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:bool"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile("^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)


def _in_directory(directory: Path) -> Path:
    for name in FILE_NAMES:
        if (directory / name).is_file():
            return directory / name
    raise DeploymentFileError(f"{directory} has no {FILE_NAMES[0]}")


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise DeploymentFileError(f"{path} is not text in UTF-8: {error.reason}") from error
    except OSError as error:
        raise DeploymentFileError(f"cannot read {path}: {error.strerror}") from error


def _lines(node: yaml.MappingNode, source: str, prefix: str = "") -> dict[str, int]:
    found: dict[str, int] = {}
    for key, value in node.value:
        name = f"{prefix}{key.value if isinstance(key, yaml.ScalarNode) else '?'}"
        line = key.start_mark.line + 1
        if name in found:
            raise DeploymentFileError(
                f"{source}:{line}: {name} is here twice; it is also on line {found[name]}"
            )
        found[name] = line
        if isinstance(value, yaml.MappingNode):
            found |= _lines(value, source, f"{name}.")
    return found


def _explain_yaml(error: yaml.YAMLError, source: str) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        context = f" ({error.context})" if error.context else ""
        return f"{source}:{mark.line + 1}:{mark.column + 1}: {error.problem}{context}"
    return f"{source}: {' '.join(str(error).split())}"


def _explain(error: ValidationError, source: str, lines: dict[str, int]) -> str:
    return "\n".join(
        _explain_one(".".join(str(part) for part in problem["loc"]), problem, source, lines)
        for problem in error.errors(include_url=False)
    )


def _explain_one(key: str, problem: Any, source: str, lines: dict[str, int]) -> str:
    parent, _, last = key.rpartition(".")
    where = f"{source}:{lines.get(key) or lines.get(parent, 1)}"
    if problem["type"] == "missing":
        return f"{where}: {key} is missing; legal is {_LEGAL[key]}"
    if problem["type"] == "extra_forbidden":
        model = Resources if parent == "resources" else DeploymentSpec
        close = difflib.get_close_matches(last, model.model_fields, n=1)
        hint = f"did you mean {close[0]}? " if close else ""
        return (
            f"{where}: unknown key {key} = {_shown(problem['input'])}; {hint}"
            f"legal keys are {', '.join(model.model_fields)}"
        )
    return (
        f"{where}: {key} = {_shown(problem['input'])}; legal is {_LEGAL.get(key, problem['msg'])}"
    )


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:79]}…"
