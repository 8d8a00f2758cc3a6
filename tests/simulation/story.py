"""What happened in a simulated run, as lines that a person reads."""

from forebay.v1.scaling_pb2 import ScaleDecision
from services.autoscaler.simulation.world import World

REQUESTS = frozenset({"arrives", "served", "redelivered", "leaves", "refused", "poison"})

_COUNTED = {
    "arrives": ("1 request to {d} arrives", "{n} requests to {d} arrive"),
    "served": ("1 request to {d} is done", "{n} requests to {d} are done"),
    "leaves": ("1 client of {d} gives up waiting", "{n} clients of {d} give up waiting"),
    "refused": ("1 request to {d} is refused", "{n} requests to {d} are refused"),
    "poison": (
        "1 request to {d} is set aside as poison",
        "{n} requests to {d} are set aside as poison",
    ),
}
_NAMED = {
    "starts": ("starts", "start"),
    "ready": ("is ready", "are ready"),
    "drains": ("finishes what it has", "finish what they have"),
    "stops": ("stops", "stop"),
    "crashes": ("crashes", "crash"),
    "fails": ("has failed too often", "have failed too often"),
    "redelivered": (
        "takes a request that was delivered before",
        "take requests that were delivered before",
    ),
}
_NODES = {
    "node joins": ("joins", "join"),
    "node goes": ("is released", "are released"),
    "node is cut off": ("is cut off", "are cut off"),
    "node dies": ("dies", "die"),
    "node is back": ("is back", "are back"),
}


class Story:
    """Collects what happens; what is alike at one instant becomes one line."""

    def __init__(self, world: World, shows_requests: bool) -> None:
        self.lines: list[str] = []
        self._world = world
        self._shows_requests = shows_requests
        self._at_s = -1.0
        # By kind and deployment in the order they came.
        self._now: dict[tuple[str, str], list[str]] = {}
        world.mesh.note = self.note
        world.on_decision = self.decided

    def note(self, kind: str, deployment: str, what: str) -> None:
        """Something happened."""
        if kind in REQUESTS and not self._shows_requests:
            return
        self._turn()
        self._now.setdefault((kind, deployment), []).append(what)

    def decided(self, deployment: str, decision: ScaleDecision) -> None:
        """A decision was noted."""
        rule = ScaleDecision.Rule.Name(decision.rule).removeprefix("RULE_").lower()
        advice = "" if decision.applied else ", which is only advice"
        self.say(f"decision by {rule}{advice}: {deployment}: {decision.reason}")

    def say(self, text: str) -> None:
        """Adds a line of its own."""
        self.flush()
        self.lines.append(f"{self._world.now_s:9.2f} s  {text}")

    def flush(self) -> None:
        """Writes what was collected for this instant."""
        for (kind, deployment), whats in self._now.items():
            self.lines.append(f"{self._at_s:9.2f} s  {_line(kind, deployment, whats)}")
        self._now.clear()
        self._at_s = self._world.now_s

    def _turn(self) -> None:
        if self._at_s != self._world.now_s:
            self.flush()


def _line(kind: str, deployment: str, whats: list[str]) -> str:
    many = len(whats) > 1
    if kind in _COUNTED:
        return _COUNTED[kind][many].format(d=deployment, n=len(whats))
    if kind == "starts":
        placed = [what.partition(" on ") for what in whats]
        return ", ".join(f"{name} starts on {where}" for name, _, where in placed)
    if kind in _NAMED:
        names = sorted(set(whats), key=whats.index)
        return f"{', '.join(names)} {_NAMED[kind][len(names) > 1]}"
    if kind.startswith("GPU "):
        return f"{kind} {', '.join(whats)}"
    if kind.startswith("node ") and kind != "node demand":
        nodes = f"node {whats[0]}" if not many else f"nodes {', '.join(whats)}"
        return f"{nodes} {_NODES[kind][many]}"
    return f"{kind}: {', '.join(whats)}"
