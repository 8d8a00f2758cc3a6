"""The built-in page as a document: one, closed, and made of text only."""

import base64
import hashlib
import re
from pathlib import Path

from services.metrics.page import document

FOLDER = Path(document.__file__).parent


def _text() -> str:
    return document.read().body.decode()


def test_every_script_is_in_the_document() -> None:
    assert {file.name for file in FOLDER.glob("*.js")} == set(document.SCRIPTS)


def test_its_policy_allows_what_is_in_it_and_nothing_else() -> None:
    headers = dict(document.read().headers)
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    for tag in ("style", "script"):
        (inside,) = re.findall(f"<{tag}>(.*?)</{tag}>", _text(), re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy


def test_loads_nothing_from_elsewhere() -> None:
    text = _text().replace("http://www.w3.org/2000/svg", "")
    assert not re.findall(r"(?:https?:)?//[a-z]", text)
    assert not re.findall(r"\b(?:src|import)\s*=|@import|url\(", text)


def test_what_was_read_never_becomes_html() -> None:
    for file in FOLDER.glob("*.js"):
        found = re.findall(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|Function\(|srcdoc",
            file.read_text(),
        )
        assert not found, file.name


def test_files_are_short() -> None:
    long = {
        f.name for f in FOLDER.iterdir() if f.is_file() and len(f.read_text().splitlines()) > 400
    }
    assert not long
