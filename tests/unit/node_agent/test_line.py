"""Since when what is inside a Triton can have been at work."""

from services.node_agent.tasks.line import Line
from services.node_agent.triton.instance_groups import UNBOUNDED, at_work_at_once
from services.wire.triton_stubs import model_config_pb2


def test_what_waits_for_an_instance_is_not_at_work() -> None:
    line = Line(instances=2)
    for key in range(4):
        line.enter(key, now_s=key)
    assert [line.at_work_since_s(key) for key in range(4)] == [0, 1, None, None]
    assert line.leave(1, now_s=10) == 9
    assert [line.at_work_since_s(key) for key in (0, 2, 3)] == [0, 10, None]
    assert len(line) == 3


def test_what_leaves_without_having_been_at_work_makes_no_room() -> None:
    line = Line(instances=1)
    for key in range(3):
        line.enter(key, now_s=0)
    assert line.leave(1, now_s=5) == 0
    assert line.at_work_since_s(2) is None
    line.leave(0, now_s=7)
    assert line.at_work_since_s(2) == 7
    line.leave(2, now_s=8)
    line.enter(9, now_s=9)
    assert line.at_work_since_s(9) == 9


def test_what_was_overtaken_may_have_waited() -> None:
    line = Line(instances=2)
    for key in range(4):
        line.enter(key, now_s=key)
    line.leave(3, now_s=10)
    assert [line.at_work_since_s(key) for key in (0, 1, 2)] == [0, 10, None]
    assert line.leave(1, now_s=12) == 11
    assert line.at_work_since_s(2) == 12


def test_what_leaves_without_an_answer_has_overtaken_nothing() -> None:
    line = Line(instances=1)
    line.enter(0, now_s=0)
    for key in range(1, 10):
        # Its caller had gone before it came.
        line.enter(key, now_s=key)
        line.leave(key, now_s=key + 0.1, answered=False)
    assert line.at_work_since_s(0) == 0
    assert len(line) == 1


def test_what_hangs_is_at_work_however_many_are_answered_beside_it() -> None:
    line = Line(instances=2)
    line.enter(0, now_s=0)
    for key in range(1, 100):
        line.enter(key, now_s=key)
        line.enter(-key, now_s=key)
        # The two change places each time.
        line.leave(-key, now_s=key + 0.5)
        line.leave(key, now_s=key + 0.6)
        assert line.at_work_since_s(0) == 0
    assert len(line) == 1


def test_instances_are_counted_over_groups_and_gpus() -> None:
    config = model_config_pb2.ModelConfig()
    assert at_work_at_once(config) == 1
    config.instance_group.add(count=2, kind=model_config_pb2.ModelInstanceGroup.KIND_CPU)
    gpus = model_config_pb2.ModelInstanceGroup.KIND_GPU
    config.instance_group.add(count=3, kind=gpus, gpus=[0, 1])
    assert at_work_at_once(config) == 8
    config.instance_group.add(count=1, kind=model_config_pb2.ModelInstanceGroup.KIND_MODEL)
    assert at_work_at_once(config) == UNBOUNDED
