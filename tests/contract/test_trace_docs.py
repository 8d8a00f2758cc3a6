"""docs/traces.md names every span and every attribute."""

import ast

import pytest

from services.autoscaler import origins
from services.node_agent.traces import trace_names
from services.runtime import trace_words
from tests.contract.tree import ROOT

PAGE = (ROOT / "docs" / "traces.md").read_text()


def constants(module: object) -> list[str]:
    return sorted(
        value for name, value in vars(module).items() if name.isupper() and isinstance(value, str)
    )


@pytest.mark.parametrize("word", constants(trace_words))
def test_each_attribute_is_explained(word: str) -> None:
    assert f"`{word}`" in PAGE


def written() -> list[str]:
    """Names of spans that are written where the spans are made."""
    calls = [
        node
        for folder in ("services", "forebay")
        for path in sorted((ROOT / folder).rglob("*.py"))
        if "telemetry.span(" in (text := path.read_text())
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "telemetry.span"
    ]
    return [c.args[0].value for c in calls if isinstance(c.args[0], ast.Constant)]


@pytest.mark.parametrize("name", [*constants(trace_names), *written(), origins.SPAN])
def test_each_span_is_explained(name: str) -> None:
    wanted = f"`{name}`"
    assert wanted in PAGE
