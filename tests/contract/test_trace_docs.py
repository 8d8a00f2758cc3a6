"""docs/traces.md names every span and every attribute."""

import pytest

from services.node_agent import trace_names
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


@pytest.mark.parametrize("name", constants(trace_names))
def test_each_span_is_explained(name: str) -> None:
    wanted = f"`{name}`"
    assert wanted in PAGE
