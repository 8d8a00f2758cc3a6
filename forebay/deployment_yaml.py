"""The text of a deployment file as plain values, with the line of each key. Pure."""

import re
from dataclasses import dataclass
from typing import Any

import yaml


class DeploymentFileError(Exception):
    """The file is wrong; the text says where, and what is legal."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong with the value of a key.

    Attributes:
        key: dotted path of the key.
        sentence: what is wrong and what to do, to be read after the key.
    """

    key: str
    sentence: str


@dataclass(frozen=True, slots=True)
class Text:
    """What a text says.

    Attributes:
        source: name of the text in errors.
        values: the mapping that it is.
        lines: the line of each key by its dotted path; items of a list are numbered from 0.
    """

    source: str
    values: dict[Any, Any]
    lines: dict[str, int]

    def where(self, key: str) -> str:
        """`file:line` of a key, or of what it would be in."""
        while key and key not in self.lines:
            key = key.rpartition(".")[0]
        return f"{self.source}:{self.lines.get(key, 1)}"

    def told(self, problem: Problem, called: str = "") -> str:
        """A problem as people read it.

        Args:
            problem: its key as in the file.
            called: what the key is called here, if the file calls it otherwise.
        """
        name = f"{problem.key} (here {called})" if called else problem.key
        return f"{self.where(problem.key)}: {name} {problem.sentence}"


def read(text: str, source: str, legal_keys: list[str]) -> Text:
    """Reads YAML.

    Args:
        text: what is read.
        source: name of the text in errors.
        legal_keys: keys of the mapping it should be, for an error.

    Raises:
        DeploymentFileError: if it is not YAML, not a mapping, or has a key twice.
    """
    try:
        node = yaml.compose(text, Loader=_Loader)
        if not isinstance(node, yaml.MappingNode):
            raise DeploymentFileError(
                f"{source}:1: a deployment file is a mapping of keys to values; legal keys are "
                f"{', '.join(legal_keys)}"
            )
        lines = _lines(node, source)
        values = yaml.load(text, Loader=_Loader)  # noqa: S506, a SafeLoader
    except yaml.YAMLError as error:
        raise DeploymentFileError(_explain_yaml(error, source)) from error
    return Text(source, values, lines)


class _Loader(yaml.SafeLoader):
    """Safe YAML in which on, off, yes and no are words, as in YAML 1.2."""

    yaml_implicit_resolvers = {  # noqa: RUF012, declared by the base class
        first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:bool"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile("^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)


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
        elif isinstance(value, yaml.SequenceNode):
            for index, item in enumerate(value.value):
                found[f"{name}.{index}"] = item.start_mark.line + 1
                if isinstance(item, yaml.MappingNode):
                    found |= _lines(item, source, f"{name}.{index}.")
    return found


def _explain_yaml(error: yaml.YAMLError, source: str) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        context = f" ({error.context})" if error.context else ""
        return f"{source}:{mark.line + 1}:{mark.column + 1}: {error.problem}{context}"
    return f"{source}: {' '.join(str(error).split())}"
