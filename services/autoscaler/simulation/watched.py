"""What a simulated autoscaler remembers of one deployment. Pure."""

from collections import deque

from services.autoscaler.assignments import spec_of
from services.autoscaler.scaling.declared import rules_of
from services.autoscaler.scaling.policies import Custom, MaxOf, Policy, RequestLatency
from services.autoscaler.scaling.rules import Rules, State
from services.autoscaler.scaling.scaler import Scaler
from services.autoscaler.simulation.calm import Calm
from services.autoscaler.simulation.deployed import Deployed
from services.autoscaler.simulation.observation import UNKNOWN, PaceWindow, Sample
from services.autoscaler.startups import Starts
from services.autoscaler.view import View


class Watched:
    """A deployment with its scaler and what was seen of it.

    Attributes:
        deployed: the deployment.
        generation: rises when replicas are to be replaced.
        rules, spec: what is declared.
        scaler: decides.
        pending: what was polled and is not seen yet, each with its instant.
        seen, seen_since_s: what is seen, and since when.
        pace: the window of service times; None if the policy needs none.
        look_s: by when to look although nothing changes.
        woken_s: when a router said that a request waits.
        numbers: decisions that were noted.
        calm: tells whether a look is needed; None: always.
        delays_end_s: by when one is needed whatever `calm` says.
        starts, view: what was seen of its replicas, and in which view.
    """

    __slots__ = (
        "calm",
        "delays_end_s",
        "deployed",
        "look_s",
        "numbers",
        "pace",
        "pace",
        "pending",
        "rules",
        "scaler",
        "seen",
        "seen_since_s",
        "spec",
        "starts",
        "view",
        "woken_s",
    )

    def __init__(self, deployed: Deployed, state: State | None, known_before: bool) -> None:
        self.deployed = deployed
        self.rules = rules_of(deployed.declared)
        self.spec = spec_of(deployed.declared)
        self.scaler = Scaler(self.rules, state, known_before)
        self.pending: deque[tuple[float, Sample]] = deque()
        self.seen: Sample = UNKNOWN
        self.seen_since_s = 0.0
        self.pace = PaceWindow() if needs_pace(self.rules.policy) else None
        self.look_s = 0.0
        self.woken_s: float | None = None
        self.numbers = 0
        self.calm = self._calm()
        self.delays_end_s = 0.0
        self.starts = Starts()
        self.view: View | None = None

    def declare(self) -> Rules:
        """Takes what is declared by now; returns what was."""
        before = self.rules
        self.rules = rules_of(self.deployed.declared)
        self.spec = spec_of(self.deployed.declared)
        self.scaler.declare(self.rules)
        if self.pace is None and needs_pace(self.rules.policy):
            self.pace = PaceWindow()
        self.look_s = self.delays_end_s = 0.0
        self.calm = self._calm()
        return before

    def _calm(self) -> Calm | None:
        useful = self.pace is None and self.rules.policy is not None and self.rules.pinned is None
        return Calm(self.rules) if useful and not self.rules.advisory else None

    def see(self, until_s: float, now_s: float) -> None:
        """Takes what was polled by an instant."""
        pending = self.pending
        while pending and pending[0][0] <= until_s:
            _, sample = pending.popleft()
            if sample != self.seen:
                self.seen, self.seen_since_s = sample, now_s


def needs_pace(policy: Policy | None) -> bool:
    """Whether a policy goes by service times, waits or rates."""
    if isinstance(policy, MaxOf):
        return any(needs_pace(part) for part in policy.policies)
    return isinstance(policy, RequestLatency | Custom)
