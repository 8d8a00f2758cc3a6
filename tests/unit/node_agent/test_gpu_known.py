"""Every GPU that was ever found, its figures, and who holds its memory."""

from forebay.v1.node_pb2 import Gpu
from services.node_agent.gpus.known import FORGET_S, MAX_GPUS, KnownGpus
from services.node_agent.gpus.reading import Card, Event, Figures, ProcessUse, Reading
from services.node_agent.gpus.users import MAX_PROCESSES, GpuUsers

GIB = 1 << 30
NOBODY = GpuUsers()


def whole(number: int, **figures: object) -> Card:
    uuid = f"GPU-{number}"
    return Card(uuid, (Figures(uuid, "NVIDIA L4", 24 * GIB, GIB, **figures),))  # type: ignore[arg-type]


def cut(number: int, *instances: int) -> Card:
    uuid = f"GPU-{number}"
    offers = [Figures(f"MIG-{uuid}-{i}", "A100 MIG", 5 * GIB, instance=(i, 0)) for i in instances]
    return Card(uuid, tuple(offers))


def after(*readings: tuple[Card, ...]) -> KnownGpus:
    known = KnownGpus()
    for second, cards in enumerate(readings):
        known.apply(Reading(cards), float(second))
    return known


def test_a_gpu_that_is_gone_stays_reported_as_lost_under_its_name() -> None:
    known = after((whole(0, temperature_celsius=40.0), whole(1)), (whole(1),))
    lost, well = known.gpus(NOBODY)
    assert (lost.uuid, lost.product_name, lost.health) == ("GPU-0", "NVIDIA L4", Gpu.HEALTH_LOST)
    assert lost.memory_total_bytes == 24 * GIB
    assert not lost.HasField("temperature_celsius")
    assert well.health == Gpu.HEALTH_OK
    assert known.unusable() == {"GPU-0": "NVML does not find the GPU any more"}
    known.apply(Reading((whole(0), whole(1))), 1e6)
    assert not known.unusable()


def test_what_is_not_known_is_left_unset() -> None:
    card = Card("GPU-0", (Figures("GPU-0", "NVIDIA L4"),))
    (gpu,) = after((card,)).gpus(NOBODY)
    for name in ("temperature_celsius", "power_watts", "power_limit_watts", "ecc_corrected_count"):
        assert not gpu.HasField(name)
    (zero,) = after((whole(0, ecc_corrected_count=0, power_watts=0.0),)).gpus(NOBODY)
    assert zero.HasField("ecc_corrected_count")
    assert zero.HasField("power_watts")


def test_a_card_in_mig_mode_is_offered_as_its_instances() -> None:
    known = after((cut(0, 1, 2), whole(1)))
    first, second, other = known.gpus(NOBODY)
    assert (first.uuid, first.mig_parent_uuid) == ("MIG-GPU-0-1", "GPU-0")
    assert (second.uuid, second.mig_parent_uuid) == ("MIG-GPU-0-2", "GPU-0")
    assert other.mig_parent_uuid == ""
    known.note(Event("GPU-0", xid=95, instance=(2, 0)))
    assert list(known.unusable()) == ["MIG-GPU-0-2"]
    known.note(Event("GPU-0", xid=79))
    assert list(known.unusable()) == ["MIG-GPU-0-1", "MIG-GPU-0-2"]


def test_an_instance_that_was_removed_is_lost_for_a_while_and_then_forgotten() -> None:
    known = after((cut(0, 1, 2),), (cut(0, 1),))
    assert known.unusable() == {
        "MIG-GPU-0-2": "NVML does not find it any more: the GPU was partitioned anew"
    }
    known.apply(Reading((cut(0, 1),)), FORGET_S + 2)
    assert [gpu.uuid for gpu in known.gpus(NOBODY)] == ["MIG-GPU-0-1"]


def test_a_whole_gpu_that_was_cut_up_is_lost_and_its_instances_are_there() -> None:
    known = after((whole(0),), (cut(0, 1),))
    assert list(known.unusable()) == ["GPU-0"]
    assert [gpu.uuid for gpu in known.gpus(NOBODY)] == ["GPU-0", "MIG-GPU-0-1"]


def test_a_lost_gpu_is_never_forgotten_for_its_age() -> None:
    known = after((whole(0),), ())
    known.apply(Reading(()), 100 * FORGET_S)
    assert list(known.unusable()) == ["GPU-0"]


def test_no_more_gpus_are_kept_than_a_report_may_have() -> None:
    known = KnownGpus()
    for number in range(300):
        known.apply(Reading((whole(number),)), float(number))
    assert len(known.gpus(NOBODY)) == MAX_GPUS
    assert known.gpus(NOBODY)[-1].uuid == "GPU-299"


def test_a_lost_card_is_told_however_many_instances_the_others_have() -> None:
    cards = tuple(cut(number, *range(7)) for number in range(16))
    known = after(cards, cards[1:])
    assert len(known.gpus(NOBODY)) == 16 * 7
    assert sorted(known.unusable()) == [f"MIG-GPU-0-{number}" for number in range(7)]


def test_without_a_driver_every_gpu_is_lost_and_a_new_one_clears_what_was_wrong() -> None:
    known = after((whole(0), whole(1)))
    known.note(Event("GPU-0", xid=48))
    known.lose_all("no driver", 1.0)
    assert known.unusable() == {"GPU-0": "no driver", "GPU-1": "no driver"}
    known.apply(Reading((whole(0), whole(1)), fresh=True), 2.0)
    assert not known.unusable()


def test_memory_is_the_replicas_whose_processes_hold_it() -> None:
    on_0 = (ProcessUse(10, 4 * GIB), ProcessUse(11, GIB), ProcessUse(99, 2 * GIB))
    known = after((whole(0, processes=on_0), whole(1, processes=(ProcessUse(10, GIB),))))
    users = GpuUsers.of({"r-a": (10, 12), "r-b": (11,), "r-idle": (13,)})
    assert known.used_bytes(users) == {"r-a": 5 * GIB, "r-b": GIB}
    told = [(p.process_id, p.replica_id) for p in known.gpus(users)[0].processes]
    assert told == [(10, "r-a"), (99, ""), (11, "r-b")]


def test_processes_with_most_memory_are_told_and_all_are_counted() -> None:
    many = tuple(ProcessUse(pid, pid) for pid in range(1, 201))
    known = after((whole(0, processes=many),))
    users = GpuUsers.of({"r": range(1, 201)})
    told = known.gpus(users)[0].processes
    assert len(told) == MAX_PROCESSES
    assert told[0].process_id == 200
    assert known.used_bytes(users) == {"r": sum(range(1, 201))}


def test_what_never_changes_is_kept_when_it_cannot_be_read() -> None:
    known = after((whole(0),), (Card("GPU-0", (Figures("GPU-0", ""),)),))
    (gpu,) = known.gpus(NOBODY)
    assert (gpu.product_name, gpu.memory_total_bytes) == ("NVIDIA L4", 24 * GIB)
    assert gpu.memory_used_bytes == 0
