"""What people are told of the GPU memory that replicas use."""

from services.autoscaler import status
from services.autoscaler.capacity import Demand, Share
from services.autoscaler.gpu_use import GpuUse, warnings_of
from services.autoscaler.rollout import Replica, Spec, Step
from services.autoscaler.view import ReplicaView, State, View


def used(replica: str, gib: float, declared: float) -> list[str]:
    share = Share("a", ("g",), Demand(0.5, int(declared * 2**30)))
    replicas = [Replica(replica, 1, share, State.READY)]
    return warnings_of(replicas, {replica: int(gib * 2**30)})


def test_a_replica_that_uses_more_gpu_memory_than_it_declares_is_told() -> None:
    assert used("x", 9.1, 8) == [
        "replica x uses 9.1 GiB of GPU memory and declares 8 GiB: raise resources.gpu_memory_bytes"
    ]
    assert "uses 8.00098 GiB of GPU memory and declares 8 GiB" in used("x", 8 + 1 / 1024, 8)[0]
    assert used("x", 8, 8) == used("x", 9, 0) == []


def test_the_status_says_how_much_gpu_memory_the_largest_replica_uses_and_what_is_wrong() -> None:
    share = Share("a", ("g",), Demand(0.5, 8 << 30))
    step = Step(2, tuple(Replica(name, 1, share, State.READY) for name in ("x", "y")))
    memory = {"x": 9 << 30, "y": 7 << 30, "of another": 99 << 30}
    stranded = [("z", "GPU g of node a is cordoned: Xid 79")]
    told = status.describe(Spec("add", 1), step, View(), "", None, memory, stranded)
    assert told.max_gpu_memory_used_bytes == 9 << 30
    assert [warning.split(" of ")[0] for warning in told.warnings] == [
        "replica z is on a GPU that it must leave: GPU g",
        "replica x uses 9 GiB",
    ]
    many = [(f"z-{i}", "Xid 79") for i in range(30)]
    told = status.describe(Spec("add", 1), step, View(), "", None, memory, many)
    assert (len(told.warnings), told.warnings[19]) == (20, "12 more replicas are like these")


def test_what_is_told_of_gpu_memory_follows_only_what_is_more_than_noise() -> None:
    def told(mib: float | None) -> object:
        measured = None if mib is None else (int(mib * 2**20),)
        return use.look({"x": ReplicaView("a", "add", 1, State.READY, used_bytes=measured)})

    use = GpuUse()
    assert told(8000) == told(8064) == told(7936) == {"x": 8000 << 20}
    assert told(8065) == told(8100) == {"x": 8065 << 20}
    assert told(None) == {}
