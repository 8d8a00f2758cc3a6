"""What the built-in page of a metrics service asks for, asked for by a test."""

import asyncio
import json
import urllib.error
import urllib.request
from typing import Any

from tests.support.control_plane import ControlPlane


async def ask(mesh: ControlPlane, path: str) -> tuple[int, dict[str, str], str]:
    def get() -> tuple[int, dict[str, str], str]:
        try:
            with urllib.request.urlopen(f"http://{mesh.http}{path}", timeout=30) as answer:
                return answer.status, dict(answer.headers), answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, dict(error.headers), error.read().decode()

    return await asyncio.to_thread(get)


async def told(mesh: ControlPlane, path: str) -> dict[str, Any]:
    status, headers, body = await ask(mesh, path)
    assert status == 200, body
    assert headers["Content-Type"].startswith("application/json")
    assert headers["Cache-Control"] == "no-store"
    return json.loads(body)
