"""A headless Chromium that a test looks through and points with (DevTools protocol)."""

import asyncio
import re
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
ABSENT = "there is no browser: install Debian's package chromium"

# A browser takes its time on a busy machine.
TIMEOUT_S = 60.0

_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--window-size=1280,1000",
    "--remote-debugging-port=0",
)


class Browser:
    """One page.

    Attributes:
        complaints: what the page logged as an error, such as an exception or a refused resource.
    """

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._number = 0
        self.complaints: list[str] = []

    async def open(self, url: str) -> None:
        for domain in ("Runtime", "Log", "Page"):
            await self.call(f"{domain}.enable")
        await self.call("Page.navigate", url=url)

    async def evaluate(self, expression: str) -> Any:
        """Value of a JavaScript expression; None if it raises."""
        found = await self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        return found["result"].get("value")

    async def document(self) -> str:
        return str(await self.evaluate("document.documentElement.outerHTML"))

    async def point(self, x: float, y: float) -> None:
        """Moves the pointer."""
        await self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    async def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        number = self._number
        await self._socket.send_json({"id": number, "method": method, "params": parameters})
        async with asyncio.timeout(TIMEOUT_S):
            while True:
                answer = await self._socket.receive_json()
                if answer.get("method") == "Runtime.exceptionThrown":
                    self.complaints.append(str(answer["params"]["exceptionDetails"]))
                if answer.get("method") == "Log.entryAdded":
                    self.complaints.append(str(answer["params"]["entry"]))
                if answer.get("id") == number:
                    assert "error" not in answer, answer
                    return answer["result"]


@asynccontextmanager
async def browser(directory: Path, url: str) -> AsyncIterator[Browser]:
    """A browser that has opened a page; gone at the end of the block."""
    process = await asyncio.create_subprocess_exec(
        str(CHROMIUM),
        *_FLAGS,
        f"--user-data-dir={directory}",
        "about:blank",
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    # Read to the end, or the browser would stop at a full pipe.
    said: asyncio.Queue[str] = asyncio.Queue()
    reading = asyncio.ensure_future(_read(process.stderr, said))
    try:
        async with asyncio.timeout(TIMEOUT_S):
            while not (found := re.search(r"ws://127\.0\.0\.1:(\d+)/", await said.get())):
                pass
        async with aiohttp.ClientSession() as session:
            async with session.get(f"http://127.0.0.1:{found.group(1)}/json") as answer:
                pages = [one for one in await answer.json() if one["type"] == "page"]
            async with session.ws_connect(pages[0]["webSocketDebuggerUrl"], max_msg_size=0) as ws:
                made = Browser(ws)
                await made.open(url)
                yield made
                await made.call("Browser.close")
        async with asyncio.timeout(TIMEOUT_S):
            await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        await reading


async def _read(stream: asyncio.StreamReader, said: asyncio.Queue[str]) -> None:
    async for line in stream:
        said.put_nowait(line.decode(errors="replace"))
