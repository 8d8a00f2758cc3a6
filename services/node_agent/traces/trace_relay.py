"""Takes the spans that Tritons make of their own, and sends them on with the agent's.

Triton speaks OTLP over HTTP only, and knows no collector but the one in its flags: here. Its spans
leave by the agent's exporter, so that one place is configured, and as what docs/traces.md says they
are. What does not fit is dropped and counted; no Triton is ever made to wait, since it would wait
with its exit, too.
"""

import asyncio
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog
from aiohttp import web
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import DecodeError

from services.node_agent.traces.recent_calls import RecentCalls
from services.node_agent.traces.triton_spans import SpanMaker
from services.runtime import ports, telemetry
from services.runtime.clock import Clock

log = structlog.get_logger()

PATH = "/v1/traces"

MAX_BODY_BYTES = 4 << 20
"""Triton sends 512 spans at once at most, 300 KB."""

MAX_WAITING = 8
"""Bodies that are here at once."""

MAX_CONNECTIONS = 256
"""From all containers together: a model may open as many as it has ports, and each takes memory."""

READ_S = 5.0
"""How long a body may take to come: it holds up one of those that are here at once."""

BYTES_PER_S = 8 << 20
"""Of all Tritons together, over the last seconds: about 14,000 spans, of 4,500 calls."""

SAY_EVERY_S = 60.0
CLOSE_S = 1.0


@dataclass(slots=True)
class Budget:
    """How much may still come now."""

    left_bytes: float
    since_s: float

    def take(self, size: int, now_s: float) -> bool:
        """Whether so many bytes may come; they are taken then."""
        refilled = self.left_bytes + (now_s - self.since_s) * BYTES_PER_S
        self.left_bytes, self.since_s = min(refilled, 4.0 * BYTES_PER_S), now_s
        if size > self.left_bytes:
            return False
        self.left_bytes -= size
        return True


class TraceRelay:
    """An OTLP receiver for the Tritons of one node.

    Attributes:
        url: where it listens, once it is open.
        dropped_count: spans, or bodies that could not be read, that were not passed on.
    """

    def __init__(self, node: str, calls: RecentCalls, clock: Clock) -> None:
        """Does not listen yet. Tracing must be on.

        Args:
            node: whose Tritons they are.
            calls: which spans are ours.
            clock: for the rate.
        """
        export = telemetry.export()
        if export is None:
            raise RuntimeError("tracing is off")
        self._export = export
        self._spans = SpanMaker(node, calls)
        self._clock = clock
        self._budget = Budget(4.0 * BYTES_PER_S, clock.monotonic_s())
        self._waiting = 0
        self._one_at_a_time = asyncio.Lock()
        self._runner: web.AppRunner | None = None
        self._server: asyncio.Server | None = None
        self._said_s = -SAY_EVERY_S
        self.url = ""
        self.dropped_count = 0

    async def open(self, listen: str, port_file: Path) -> None:
        """Listens.

        Args:
            listen: `host:port`; port 0 takes the one of last time, if it is free, so that Tritons
                that outlive an agent find the next one.
            port_file: remembers it.

        Raises:
            AddressError: if nobody can listen there.
        """
        app = web.Application(client_max_size=MAX_BODY_BYTES)
        app.router.add_post(PATH, self._post)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=CLOSE_S)
        await self._runner.setup()
        host, port = ports.split(listen)
        for candidate in [_remembered(port_file), 0] if port == 0 else [port]:
            try:
                self._server = await asyncio.get_running_loop().create_server(
                    self._connected, host, candidate
                )
            except OSError as error:
                if candidate and port == 0:
                    continue
                await self._runner.cleanup()
                raise ports.AddressError(f"trace_relay_listen = {listen}: {error}") from error
            break
        assert self._server is not None, "a port is always tried"
        bound = self._server.sockets[0].getsockname()
        await asyncio.to_thread(port_file.write_text, str(bound[1]))
        # Where the processes of this machine find it; containers are told another name by theirs.
        near = "127.0.0.1" if host in {"0.0.0.0", "::"} else host
        self.url = f"http://{near}:{bound[1]}{PATH}"

    async def close(self) -> None:
        """Ends, once what came is passed on."""
        if self._server is not None:
            self._server.close()
        if self._runner is not None:
            await self._runner.cleanup()

    def _connected(self) -> asyncio.BaseProtocol:
        assert self._runner is not None
        server = self._runner.server
        assert server is not None, "it was set up"
        if len(server.connections) >= MAX_CONNECTIONS:
            self._dropped(1, f"{MAX_CONNECTIONS} connections are open")
            return _Closed()
        return server()

    async def _post(self, request: web.Request) -> web.Response:
        size = request.content_length
        if size is None or size > MAX_BODY_BYTES:
            return self._refused(413, f"a body has at most {MAX_BODY_BYTES} bytes, and says so")
        fits = self._waiting < MAX_WAITING and self._budget.take(size, self._clock.monotonic_s())
        if not fits:
            return self._refused(429, "too much at once")
        self._waiting += 1
        try:
            async with asyncio.timeout(READ_S):
                body = await request.read()
            as_json = request.content_type == "application/json"
            async with self._one_at_a_time:
                # Some milliseconds for a full batch, which the event loop has no time for.
                dropped = await asyncio.to_thread(self._pass_on, body, as_json)
        except TimeoutError:
            return self._refused(408, f"a body comes within {READ_S:g} s")
        except (ValueError, KeyError, TypeError, AttributeError, DecodeError) as error:
            return self._refused(400, f"not OTLP: {type(error).__name__}")
        finally:
            self._waiting -= 1
        if dropped:
            self._dropped(dropped, "not of a call that this agent made")
        if as_json:
            return web.json_response({})
        return web.Response(body=b"", content_type="application/x-protobuf")

    def _pass_on(self, body: bytes, as_json: bool) -> int:
        """Hands the spans of a body to the exporter; returns how many were dropped."""
        spans, dropped = self._spans.of(json.loads(body) if as_json else _of_protobuf(body))
        for span in spans:
            self._export.on_end(span)
        return dropped

    def _refused(self, status: int, why: str) -> web.Response:
        self._dropped(1, why)
        return web.Response(status=status, text=why)

    def _dropped(self, count: int, why: str) -> None:
        self.dropped_count += count
        now_s = self._clock.monotonic_s()
        if now_s - self._said_s >= SAY_EVERY_S:
            self._said_s = now_s
            log.warning("trace_relay.dropped", since_start=self.dropped_count, reason=why)


class _Closed(asyncio.Protocol):
    """One connection too many."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()


def _of_protobuf(body: bytes) -> dict[str, Any]:
    """An ExportTraceServiceRequest as its JSON is, but for its ids, which are in base64."""
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    found: dict[str, Any] = MessageToDict(ExportTraceServiceRequest.FromString(body))
    found["base64"] = True
    return found


def _remembered(port_file: Path) -> int:
    try:
        return int(port_file.read_text())
    except (OSError, ValueError):
        return 0
