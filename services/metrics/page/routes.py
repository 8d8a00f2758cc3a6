"""Which path of the metrics service's HTTP address gives what of the built-in page."""

import json
import secrets
from collections.abc import Callable
from urllib.parse import parse_qs, unquote

from services.metrics.http_server import MakePage, Page
from services.metrics.page import answers, document
from services.metrics.page.answers import Json
from services.metrics.page.history import INTERVAL_S, LENGTH
from services.metrics.page.recent_decisions import RecentDecisions
from services.metrics.page.sampler import MESH, Look, Sampler

JSON_TYPE = "application/json; charset=utf-8"
FAILING_TICKS = 30
"""Whether attempts fail is told from the last minute of them."""

MAX_DECISIONS_OF_ALL = 300
_HEADERS = (("Cache-Control", "no-store"),)


class Routes:
    """The page and what it asks for."""

    def __init__(
        self,
        sampler: Sampler,
        decisions: RecentDecisions,
        nats_connected: Callable[[], bool],
    ) -> None:
        """Reads the document.

        Args:
            sampler: what was seen.
            decisions: what was decided.
            nats_connected: whether metrics is connected to NATS.
        """
        self._sampler = sampler
        self._decisions = decisions
        self._nats_connected = nats_connected
        # Ticks begin anew with each process; a page that has those of another must say so.
        self._run = secrets.token_hex(8)
        self._document = document.read()
        self._listed: tuple[Look | None, list[Json]] = (None, [])

    def find(self, target: str) -> MakePage | None:
        """How to make the page of a target such as `/api/deployments/add?since=12`."""
        path, _, query = target.partition("?")
        if path == "/":
            return self._index
        kind, _, name = path.removeprefix("/api/").partition("/")
        make = {"mesh": self._mesh, "deployments": self._deployment, "nodes": self._node}.get(kind)
        if make is None or not path.startswith("/api/") or (kind == "mesh") == bool(name):
            return None
        wanted, since = unquote(name), _since(query)

        async def page() -> Page:
            found = make(wanted, since)
            if found is None:
                return _json(404, {"error": f"there is no such {kind.removesuffix('s')}"})
            return _json(200, {**self._head(), **found})

        return page

    async def _index(self) -> Page:
        return self._document

    def _head(self) -> Json:
        return {
            "run": self._run,
            "time_s": self._sampler.look.wall_s,
            "interval_s": INTERVAL_S,
            "length": LENGTH,
            "nats_connected": self._nats_connected(),
        }

    def _mesh(self, _: str, since: int) -> Json:
        sampler = self._sampler
        rows, nodes = self._rows(), answers.nodes(sampler.look)
        made = self._decisions.since(self._begin_s())
        return {
            "deployments": rows[: answers.MAX_LISTED],
            "deployment_count": len(rows),
            "nodes": nodes[: answers.MAX_LISTED],
            "node_count": len(nodes),
            "history": answers.history(sampler.mesh.series(MESH, since)),
            "decisions": answers.decisions(made[-MAX_DECISIONS_OF_ALL:]),
        }

    def _deployment(self, name: str, since: int) -> Json | None:
        sampler = self._sampler
        look = sampler.look
        if name not in look.loads:
            return None
        gpus = [
            gpu
            for node, uuids in sorted(sampler.held_gpus(name).items())
            if node in look.nodes
            for gpu in answers.gpus(node, look.nodes[node], uuids)
        ]
        return {
            "deployment": next(row for row in self._rows() if row["name"] == name),
            "wanted": answers.wanted(look.statuses.get(name)),
            "replicas": answers.replicas(look, name),
            "history": answers.history(sampler.deployments.series(name, since)),
            "decisions": answers.decisions(self._decisions.since(self._begin_s(), name)),
            **self._gpus(gpus, since),
        }

    def _node(self, name: str, since: int) -> Json | None:
        seen = self._sampler.look.nodes.get(name)
        if seen is None:
            return None
        return {
            "node": answers.node(name, seen),
            "history": answers.history(self._sampler.mesh.series("", since)),
            **self._gpus(answers.gpus(name, seen), since),
        }

    def _gpus(self, gpus: list[Json], since: int) -> Json:
        history = self._sampler.gpus
        shown = gpus[: answers.MAX_GPUS]
        for gpu in shown:
            gpu["values"] = history.series(f"{gpu['node']}/{gpu['uuid']}", since).values
        return {"gpus": shown, "gpu_count": len(gpus)}

    def _rows(self) -> list[Json]:
        """All deployments, sorted once for each look."""
        look = self._sampler.look
        if self._listed[0] is not look:
            history = self._sampler.deployments
            since = history.tick - FAILING_TICKS
            failing = {
                name: answers.failing_ratio(history.series(name, since))
                for name in look.loads
                if name in history
            }
            self._listed = (look, answers.deployments(look, failing))
        return self._listed[1]

    def _begin_s(self) -> float:
        return self._sampler.look.wall_s - INTERVAL_S * LENGTH


def _since(query: str) -> int:
    """The tick after which a history is wanted; -1, all of it, if it is no number."""
    text = parse_qs(query).get("since", [""])[0]
    return int(text) if text.isdecimal() and len(text) < 16 else -1


def _json(status: int, value: Json) -> Page:
    body = json.dumps(value, separators=(",", ":"), allow_nan=False).encode()
    return Page(status, body, JSON_TYPE, _HEADERS)
