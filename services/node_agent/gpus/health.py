"""Pure: whether replicas may run on a card, from what its driver says of it over time.

What makes a card FAULTY, and what ends that:

- A fatal Xid (see xids) or an ECC error that could not be corrected: until the card is reset, which
  shows by its having been lost and being back, by the driver's asking for a recovery and then for
  none, or by the driver's being loaded anew. A driver before R565 does not say that it asks: then
  until the agent is started again. Where the driver tells no events, a rise of the count of
  uncorrected errors stands for the event.
- What the driver says now: that the card needs a reset (a recovery action, or RESET_REQUIRED in
  answer to a query), or that a row of its memory could not be remapped: as long as it says so.

LOST is a card that was there and that NVML does not find, or finds lost: until it is back.
Any other Xid is counted and changes nothing: it is the doing of a program, whose own calls fail.
"""

from dataclasses import dataclass, field

from forebay.v1.node_pb2 import Gpu
from services.node_agent.gpus import xids
from services.node_agent.gpus.reading import Card, Event, Needs

MAX_XIDS = 32
"""Numbers that are counted of a card; what comes after so many different ones is not."""

MAX_FAULTS = 4

Instance = tuple[int, int] | None

_ACTIONS = {
    1: "a reset of the GPU",
    2: "a restart of the machine",
    4: "a reset of the GPU with all others of its NVLink drained",
    6: "a reset of its bus",
    7: "a restart of the machine",
}
"""NVML_GPU_RECOVERY_ACTION_*: those after which nothing may run. Others drain links only."""

_NONE = 0


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether replicas may run, and what is wrong, for a person."""

    health: Gpu.Health
    message: str = ""

    @property
    def usable(self) -> bool:
        """Whether replicas may run."""
        return self.health == Gpu.HEALTH_OK


@dataclass(slots=True)
class CardHealth:
    """One card over time.

    Attributes:
        ignored_xids: numbers that the operator does not want to be fatal.
    """

    ignored_xids: frozenset[int] = frozenset()
    _faults: dict[tuple[Instance, str], None] = field(default_factory=dict)
    _xids: dict[Instance, dict[int, int]] = field(default_factory=dict)
    _needs: Needs = field(default_factory=Needs)
    _lost: str = ""
    _uncorrected_count: int | None = None

    def note(self, event: Event) -> bool:
        """Something happened; whether it is the first of its kind."""
        faults = len(self._faults)
        if event.double_bit_ecc and 48 not in self.ignored_xids:
            self._blame(event.instance, xids.sentence(48))
        if event.xid is None:
            return len(self._faults) > faults
        counts = self._xids.setdefault(event.instance, {})
        first = event.xid not in counts
        if not first or sum(map(len, self._xids.values())) < MAX_XIDS:
            counts[event.xid] = counts.get(event.xid, 0) + 1
        if xids.is_fatal(event.xid, self.ignored_xids):
            self._blame(event.instance, xids.sentence(event.xid))
        return first

    def take(self, card: Card) -> None:
        """The card was found."""
        if card.lost:
            self.lose("NVML says that the GPU is lost")
            return
        if self._lost or _recovered(self._needs, card.needs):
            self.renew()
        self._lost, self._needs = "", card.needs
        self._count_errors(card)

    def lose(self, why: str) -> None:
        """The card was not found, though it had been there."""
        self._lost = why

    def renew(self) -> None:
        """The card was reset: what had happened to it is over."""
        self._faults.clear()
        self._uncorrected_count = None

    def verdict(self, instance: Instance = None) -> Verdict:
        """Whether replicas may run on the card, or on one of its MIG instances."""
        if self._lost:
            return Verdict(Gpu.HEALTH_LOST, self._lost)
        wrong = [text for where, text in self._faults if where is None or where == instance]
        needs = self._needs
        if needs.reset:
            wrong.append("the driver refuses queries until the GPU is reset")
        if needs.action in _ACTIONS:
            wrong.append(f"the driver asks for {_ACTIONS[needs.action]}")
        if needs.remap_failed:
            wrong.append("a row of its memory is broken and could not be remapped: replace the GPU")
        if wrong:
            return Verdict(Gpu.HEALTH_FAULTY, "; ".join(wrong))
        pending = "broken rows of its memory are remapped when the GPU is reset next"
        return Verdict(Gpu.HEALTH_OK, pending if needs.remap_pending else "")

    def xid_counts(self, instance: Instance = None) -> dict[int, int]:
        """Xids by their number: those of the card and those of the instance."""
        counts = dict(self._xids.get(None, {}))
        if instance is not None:
            for xid, count in self._xids.get(instance, {}).items():
                counts[xid] = counts.get(xid, 0) + count
        return counts

    def _blame(self, instance: Instance, text: str) -> None:
        if len(self._faults) < MAX_FAULTS:
            self._faults[instance, text] = None

    def _count_errors(self, card: Card) -> None:
        now = max((f.ecc_uncorrected_count or 0 for f in card.offers), default=0)
        before = self._uncorrected_count
        if not card.watched and before is not None and now > before:
            # Contained ones cannot be told from others by the count.
            text = f"{now - before} memory errors could not be corrected: reset the GPU"
            self._blame(None, text)
        self._uncorrected_count = now


def _recovered(before: Needs, now: Needs) -> bool:
    """Whether the driver asked for a recovery and asks for none any more."""
    asked = before.reset or before.action in _ACTIONS
    asks = now.reset or now.action in _ACTIONS
    return asked and not asks and now.action in (None, _NONE)
