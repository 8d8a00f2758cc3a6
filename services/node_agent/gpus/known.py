"""Pure: every GPU that this agent has ever found, with its last figures and its health."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from forebay.v1.node_pb2 import Gpu, GpuProcess
from services.node_agent.gpus.health import CardHealth, Verdict
from services.node_agent.gpus.reading import Card, Event, Figures, Reading
from services.node_agent.gpus.users import GpuUsers

MAX_GPUS = 256
"""What metrics takes in a report; 16 cards of 7 MIG instances are 112. Of more, those that have
been gone for longest are left out."""

FORGET_S = 600.0
"""How long a MIG instance is told as lost whose card is well: it was removed on purpose."""

_GONE = "NVML does not find the GPU any more"
_REMADE = "NVML does not find it any more: the GPU was partitioned anew"


@dataclass(slots=True)
class _Known:
    card: str
    figures: Figures
    there: bool = True
    gone_s: float = 0.0


class KnownGpus:
    """The GPUs by their UUID, in the order in which they were found."""

    def __init__(self, ignored_xids: frozenset[int] = frozenset()) -> None:
        """None yet.

        Args:
            ignored_xids: numbers that the operator does not want to be fatal.
        """
        self._ignored_xids = ignored_xids
        self._cards: dict[str, CardHealth] = {}
        self._gpus: dict[str, _Known] = {}

    def apply(self, reading: Reading, now_s: float) -> None:
        """What was found now; what was found before and is not is LOST.

        Args:
            reading: all that NVML finds.
            now_s: monotonic time.
        """
        found = {card.uuid: card for card in reading.cards}
        for uuid, health in self._cards.items():
            if reading.fresh:
                health.renew()
            if uuid not in found:
                health.lose(_GONE)
        offered: set[str] = set()
        for card in reading.cards:
            self._cards.setdefault(card.uuid, CardHealth(self._ignored_xids)).take(card)
            offered.update(self._take(card))
        for uuid, known in self._gpus.items():
            if known.there and uuid not in offered:
                known.there, known.gone_s = False, now_s
        self._forget(found, now_s)

    def lose_all(self, why: str, now_s: float) -> None:
        """There is no driver any more."""
        for health in self._cards.values():
            health.lose(why)
        for known in self._gpus.values():
            if known.there:
                known.there, known.gone_s = False, now_s

    def note(self, event: Event) -> bool:
        """Something happened to a card; whether it is the first of its kind there."""
        health = self._cards.get(event.card)
        return health is not None and health.note(event)

    def verdicts(self) -> dict[str, Verdict]:
        """Of every GPU."""
        return {uuid: self._verdict(known) for uuid, known in self._gpus.items()}

    def unusable(self) -> dict[str, str]:
        """What is wrong with each GPU that no replica may run on."""
        return {u: v.message for u, v in self.verdicts().items() if not v.usable}

    def gpus(self, users: GpuUsers) -> tuple[Gpu, ...]:
        """Every GPU, as it is reported.

        Args:
            users: which process belongs to which replica.
        """
        return tuple(self._message(known, users) for known in self._gpus.values())

    def used_bytes(self, users: GpuUsers) -> Mapping[str, int]:
        """GPU memory that the processes of each replica hold, over all GPUs."""
        every = [p for known in self._gpus.values() if known.there for p in known.figures.processes]
        return users.used_bytes(every)

    def _take(self, card: Card) -> set[str]:
        if card.lost:
            return set()
        for figures in card.offers:
            known = self._gpus.get(figures.uuid)
            if known is None:
                self._gpus[figures.uuid] = _Known(card.uuid, figures)
            else:
                known.card, known.there = card.uuid, True
                known.figures = _lasting(figures, known.figures)
        return {figures.uuid for figures in card.offers}

    def _forget(self, found: Mapping[str, Card], now_s: float) -> None:
        for uuid, known in list(self._gpus.items()):
            card = found.get(known.card)
            remade = card is not None and not card.lost
            if not known.there and remade and now_s - known.gone_s > FORGET_S:
                del self._gpus[uuid]
        gone = [(known.gone_s, u) for u, known in self._gpus.items() if not known.there]
        for _, uuid in sorted(gone)[: max(0, len(self._gpus) - MAX_GPUS)]:
            del self._gpus[uuid]
        used = {known.card for known in self._gpus.values()}
        for uuid in [u for u in self._cards if u not in used and u not in found]:
            del self._cards[uuid]

    def _verdict(self, known: _Known) -> Verdict:
        verdict = self._cards[known.card].verdict(known.figures.instance)
        if not known.there and verdict.health != Gpu.HEALTH_LOST:
            return Verdict(Gpu.HEALTH_LOST, _REMADE)
        return verdict

    def _message(self, known: _Known, users: GpuUsers) -> Gpu:
        figures, verdict = known.figures, self._verdict(known)
        message = Gpu(
            uuid=figures.uuid,
            product_name=figures.product_name,
            memory_total_bytes=figures.memory_total_bytes or 0,
            health=verdict.health,
            health_message=verdict.message,
            mig_parent_uuid=known.card if figures.instance is not None else "",
            xid_counts=self._cards[known.card].xid_counts(figures.instance),
        )
        if known.there:
            _add_load(message, figures, users.named(figures.processes))
        return message


def _lasting(now: Figures, before: Figures) -> Figures:
    """The figures with what does not change, should it not have been read this time."""
    total_bytes = now.memory_total_bytes
    return replace(
        now,
        product_name=now.product_name or before.product_name,
        memory_total_bytes=before.memory_total_bytes if total_bytes is None else total_bytes,
    )


def _add_load(message: Gpu, figures: Figures, processes: list[GpuProcess]) -> None:
    """What it is doing, as far as it is known; None leaves a field unset."""
    message.MergeFrom(
        Gpu(
            memory_used_bytes=figures.memory_used_bytes or 0,
            utilization_ratio=figures.utilization_ratio or 0.0,
            temperature_celsius=figures.temperature_celsius,
            power_watts=figures.power_watts,
            power_limit_watts=figures.power_limit_watts,
            ecc_corrected_count=figures.ecc_corrected_count,
            ecc_uncorrected_count=figures.ecc_uncorrected_count,
            processes=processes,
        )
    )
