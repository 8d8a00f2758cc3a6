"""Pure: what was read of the GPUs at one instant, in the project's units."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ProcessUse:
    """A process and the GPU memory that it holds."""

    process_id: int
    memory_used_bytes: int


@dataclass(frozen=True, slots=True)
class Figures:
    """A GPU that replicas can be given: a whole one, or a MIG instance. None: not known.

    Attributes:
        uuid: NVML's.
        product_name: such as `NVIDIA L4`.
        memory_total_bytes: there is.
        memory_used_bytes: in use.
        utilization_ratio: share of the last sample period in which a kernel ran, 0 to 1.
        temperature_celsius: of the card.
        power_watts: that the card draws.
        power_limit_watts: that the card may draw.
        ecc_corrected_count: of the card, since the driver was loaded.
        ecc_uncorrected_count: of the card, since the driver was loaded.
        processes: those that hold memory on it.
        instance: ids of its GPU instance and compute instance; None for a whole GPU.
    """

    uuid: str
    product_name: str
    memory_total_bytes: int | None = None
    memory_used_bytes: int | None = None
    utilization_ratio: float | None = None
    temperature_celsius: float | None = None
    power_watts: float | None = None
    power_limit_watts: float | None = None
    ecc_corrected_count: int | None = None
    ecc_uncorrected_count: int | None = None
    processes: tuple[ProcessUse, ...] = ()
    instance: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Needs:
    """What the driver says that a card needs.

    Attributes:
        action: its recovery action, by NVML's number; None if it does not say.
        reset: a query was refused because the card must be reset.
        remap_failed: a row of memory could not be remapped.
        remap_pending: rows are remapped at the next reset.
    """

    action: int | None = None
    reset: bool = False
    remap_failed: bool = False
    remap_pending: bool = False


@dataclass(frozen=True, slots=True)
class Card:
    """A physical GPU.

    Attributes:
        uuid: NVML's.
        offers: itself, or its MIG instances.
        needs: what the driver says that it needs.
        lost: NVML knows it and says that it is lost.
        watched: whether its errors are told as they happen.
    """

    uuid: str
    offers: tuple[Figures, ...] = ()
    needs: Needs = Needs()
    lost: bool = False
    watched: bool = True


@dataclass(frozen=True, slots=True)
class Reading:
    """All cards at one instant.

    Attributes:
        cards: those that NVML finds.
        problems: what could not be read, for a person.
        fresh: the driver was found anew: what was wrong before is over.
    """

    cards: tuple[Card, ...] = ()
    problems: tuple[str, ...] = ()
    fresh: bool = False


@dataclass(frozen=True, slots=True)
class Event:
    """Something that the driver tells of a card.

    Attributes:
        card: its UUID.
        xid: number of the error; None for another event.
        double_bit_ecc: whether it is an ECC error that could not be corrected.
        instance: ids of the GPU instance and compute instance it happened to; None: the card.
    """

    card: str
    xid: int | None = None
    double_bit_ecc: bool = False
    instance: tuple[int, int] | None = None
