"""The page as one document: HTML, styles and scripts put together, and what it may do.

Its Content-Security-Policy allows exactly the style and the script that are in it, by their
digests, and questions to where it came from. Nothing else is loaded, sent or framed.
"""

import base64
import hashlib
from pathlib import Path

from services.metrics.http_server import Page

HTML_TYPE = "text/html; charset=utf-8"
_HERE = Path(__file__).parent
SCRIPTS = ("words.js", "history.js", "chart.js", "parts.js", "views.js", "main.js")
"""In the order in which they need each other."""


def read() -> Page:
    """The page, with its headers."""
    style = (_HERE / "page.css").read_text()
    parts = "\n".join((_HERE / name).read_text() for name in SCRIPTS)
    # One function, so that nothing in it has a name outside.
    script = f'"use strict";\n(() => {{\n{parts}\n}})();\n'
    html = (_HERE / "page.html").read_text()
    text = html.replace("/*STYLE*/", style).replace("/*SCRIPT*/", script)
    policy = (
        "default-src 'none'; "
        f"style-src {_digest(style)}; script-src {_digest(script)}; "
        "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    )
    headers = (
        ("Content-Security-Policy", policy),
        ("Referrer-Policy", "no-referrer"),
        ("X-Frame-Options", "DENY"),
        ("Cross-Origin-Opener-Policy", "same-origin"),
        ("Cross-Origin-Resource-Policy", "same-origin"),
        ("Cache-Control", "no-store"),
    )
    return Page(200, text.encode(), HTML_TYPE, headers)


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
