"""Reads the repository's Python files for the tests of its rules."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
GENERATED = ROOT / "forebay" / "v1"


def python_files(*folders: str) -> list[Path]:
    """Every Python file below folders of the repository, generated stubs excepted."""
    return sorted(
        file
        for folder in folders
        for file in (ROOT / folder).rglob("*.py")
        if not file.is_relative_to(GENERATED)
    )


def name_of(file: Path) -> str:
    """The file's path as people write it."""
    return file.relative_to(ROOT).as_posix()


def parse(file: Path) -> ast.Module:
    """The file's syntax tree."""
    return ast.parse(file.read_text(), filename=str(file))


def imports(file: Path) -> Iterator[tuple[int, str]]:
    """Line and dotted name of everything a file imports, wherever in the file."""
    package = list(file.relative_to(ROOT).with_suffix("").parts)
    for node in ast.walk(parse(file)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = package[: -node.level] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            # `from services import router` imports services.router.
            for alias in node.names:
                yield node.lineno, f"{module}.{alias.name}"
