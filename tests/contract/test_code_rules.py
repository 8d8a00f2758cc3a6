"""Sizes, the clock, and what must not be written into the tree."""

import ast
import re
import subprocess
from pathlib import Path

import pytest

from tests.contract.tree import ROOT, imports, name_of, parse, python_files

MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60
CODE = ("forebay", "services", "tests", "examples", "scripts", "benchmarks")

# The only file that asks what time it is.
CLOCK = "services/runtime/clock.py"
# Where spans need the wall clock in nanoseconds, which the Clock does not give.
SPAN_CLOCKS = frozenset({"services/runtime/telemetry.py"})
_ASKS_THE_TIME = re.compile(
    r"time\.(?:time|monotonic|perf_counter)(?:_ns)?|(?:datetime\.)?(?:datetime\.(?:utc)?now|date\.today)"
)


def test_files_are_short() -> None:
    long = {name_of(file): len(file.read_text().splitlines()) for file in python_files(*CODE)}
    assert {name: count for name, count in long.items() if count > MAX_FILE_LINES} == {}


def test_functions_are_short() -> None:
    found = []
    for file in python_files(*CODE):
        for node in ast.walk(parse(file)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines > MAX_FUNCTION_LINES:
                    found.append(f"{name_of(file)}:{node.lineno} {node.name}: {lines} lines")
    assert not found


def test_services_ask_the_time_in_one_place() -> None:
    found = []
    for file in python_files("services"):
        if name_of(file) == CLOCK or name_of(file) in SPAN_CLOCKS:
            continue
        names = list(imports(file))
        names += [
            (node.lineno, ast.unparse(node))
            for node in ast.walk(parse(file))
            if isinstance(node, ast.Attribute)
        ]
        found += [
            f"{name_of(file)}:{line} {name}"
            for line, name in names
            if _ASKS_THE_TIME.fullmatch(name)
        ]
    assert not found


def test_no_vague_module_names() -> None:
    vague = {"common", "utils", "util", "helpers", "helper", "misc"}
    assert not [name_of(file) for file in python_files(*CODE) if file.stem in vague]


def _committed_texts() -> list[tuple[str, str]]:
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    texts = []
    for name in filter(None, listed.stdout.split("\0")):
        file = ROOT / name
        if file.is_file() and file != Path(__file__).resolve():
            try:
                texts.append((name, file.read_text()))
            except UnicodeDecodeError:
                continue
    return texts


@pytest.mark.parametrize(
    ("what", "pattern"),
    [
        (
            "an address of a package registry",
            r"files\.pythonhosted|pypi\.org|registry\.npmjs|deb\.debian\.org|index-url",
        ),
        ("a path of one machine", r"/(?:root|work|home/[a-z]+)/|/tmp/[a-z]"),
        ("a leftover of planning", r"\b(?:TODO|FIXME|XXX)\b"),
        ("a merge conflict", r"^(?:<{7}|>{7}) "),
    ],
)
def test_tree_contains_no(what: str, pattern: str) -> None:
    wanted = re.compile(pattern, re.MULTILINE)
    found = [name for name, text in _committed_texts() if wanted.search(text)]
    assert not found, f"{what} in {found}"
