"""What the documents say exists."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from forebay import deployment_file
from tests.contract.tree import ROOT, name_of

DOCUMENTS = sorted(
    file
    for pattern in ("*.md", "docs/**/*.md", "examples/**/*.md")
    for file in ROOT.glob(pattern)
    if not any(part.startswith(".") for part in file.relative_to(ROOT).parts)
)
_LINK = re.compile(r"\[[^\]]*\]\(([^)#\s]+)(?:#[^)]*)?\)")
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"`([^`\n]+)`")


def _commands(program: str) -> list[tuple[str, str]]:
    """Each first word after a program, with the document that has it."""
    found: set[tuple[str, str]] = set()
    for file in DOCUMENTS:
        text = file.read_text()
        blocks = [body for language, body in _BLOCK.findall(text) if language in ("", "sh")]
        spans = _CODE.findall(_BLOCK.sub("", text))
        for line in [line for block in blocks for line in block.splitlines()] + spans:
            match = re.match(rf"(?:\.venv/bin/)?{program} ([a-z][a-z-]*)\b", line.strip())
            if match:
                found.add((name_of(file), match.group(1)))
    return sorted(found)


@pytest.mark.parametrize("file", DOCUMENTS, ids=name_of)
def test_links_lead_somewhere(file: Path) -> None:
    links = _LINK.findall(_BLOCK.sub("", file.read_text()))
    local = [link for link in links if "://" not in link and not link.startswith("mailto:")]
    assert not [link for link in local if not (file.parent / link).exists()]


@pytest.mark.parametrize(("file", "target"), _commands("make"))
def test_make_targets_exist(file: str, target: str) -> None:
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE), file


@pytest.mark.parametrize("command", sorted({command for _, command in _commands("forebay")}))
def test_forebay_commands_exist(command: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from forebay.cli.main import main; main()", command, "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_python_in_documents_compiles() -> None:
    for file in DOCUMENTS:
        for language, body in _BLOCK.findall(file.read_text()):
            if language == "python":
                compile(body, name_of(file), "exec")


def test_deployment_files_in_documents_are_legal() -> None:
    blocks = [
        (file, body)
        for file in DOCUMENTS
        for language, body in _BLOCK.findall(file.read_text())
        if language == "yaml" and body.startswith("name:")
    ]
    assert blocks
    for file, body in blocks:
        deployment_file.parse(body, name_of(file))


@pytest.mark.parametrize(
    "file", sorted((ROOT / "examples").glob("*/deployment.yaml")), ids=lambda file: file.parent.name
)
def test_examples_are_legal_deployments(file: Path) -> None:
    assert deployment_file.load(file).spec.name == file.parent.name


def test_files_named_in_the_architecture_exist() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    names = {file.name for folder in ("services", "forebay") for file in (ROOT / folder).rglob("*")}
    spans = set(_CODE.findall(_BLOCK.sub("", text)))
    paths = {span for span in spans if span.startswith(("services/", "protos/", "forebay/"))}
    assert not sorted(path for path in paths if not (ROOT / path).exists())
    modules = {span for span in spans if re.fullmatch(r"\w+\.py", span)}
    assert not sorted(modules - names)
