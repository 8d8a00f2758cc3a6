"""Notes are summed by tenant and batch, each once, however often they are read."""

import pytest

from forebay.v1.task_record_pb2 import UsageNote
from services.autoscaler.usage.notes import (
    MAX_BATCHES,
    OTHER,
    BatchSum,
    HourTable,
    Who,
    checked,
)

STREAM = 7


def note(tenant: str = "t", batch: str = "b", seconds: float = 1.0, **fields: object) -> UsageNote:
    made = UsageNote(deployment="add", tenant=tenant, batch=batch, attempt_count=2, **fields)
    made.replica_time.FromNanoseconds(int(seconds * 1e9))
    made.gpu_time.FromNanoseconds(int(seconds * 5e8))
    return made


def kept(table: HourTable, who: list[Who]) -> HourTable:
    """What the next leader reads of what was written."""
    return HourTable({one: BatchSum.read(table[one].write()) for one in who})


def test_notes_of_a_batch_are_summed() -> None:
    table = HourTable({})
    table.add(note(), 3, STREAM)
    table.add(note(seconds=2), 4, STREAM)
    table.add(note(batch=""), 5, STREAM)
    table.read_until(9)
    assert table[Who("t", "b")] == BatchSum(4, 3.0, 1.5, 9, STREAM)
    assert table.changed == {Who("t", "b"), Who("t", "")}


def test_a_note_that_is_read_again_counts_once_whichever_sums_were_written() -> None:
    notes = [(note(batch), 10 + i) for i, batch in enumerate("abcab")]
    table = HourTable({})
    for one, sequence in notes:
        table.add(one, sequence, STREAM)
    table.read_until(14)
    # Only one of the three was written before the crash.
    again = kept(table, [Who("a", "b")])
    assert again[Who("a", "b")].attempt_count == 4
    for one, sequence in [*notes, (note("a"), 15)]:
        again.add(one, sequence, STREAM)
    assert [again[Who(tenant, "b")].attempt_count for tenant in "abc"] == [6, 4, 2]


def test_a_stream_of_notes_that_was_made_anew_begins_again() -> None:
    table = HourTable({Who("t", "b"): BatchSum(2, 1.0, 0.5, 1000, STREAM)})
    table.add(note(), 1, STREAM + 1)
    assert table[Who("t", "b")] == BatchSum(4, 2.0, 1.0, 1, STREAM + 1)


def test_batches_beyond_the_bound_are_summed_together() -> None:
    table = HourTable({})
    for i in range(MAX_BATCHES + 5):
        table.add(note(batch=f"b{i}"), i + 1, STREAM)
    assert table[Who(OTHER, OTHER)].attempt_count == 10
    assert len(table.changed) == MAX_BATCHES + 1
    # The same after a crash in which only the last sum was written.
    table.read_until(MAX_BATCHES + 5)
    again = kept(table, [Who(OTHER, OTHER)])
    for i in range(MAX_BATCHES + 5):
        again.add(note(batch=f"b{i}"), i + 1, STREAM)
    assert again[Who(OTHER, OTHER)].attempt_count == 10


@pytest.mark.parametrize(
    "wrong",
    [
        note(tenant=""),
        note(tenant="A"),
        note(tenant="a.b"),
        note(batch="*"),
        note(batch="_other"),
        note(seconds=-1),
        note(seconds=1e10),
        UsageNote(deployment="a.b", tenant="t"),
        UsageNote(deployment="add", tenant="t", attempt_count=-1),
    ],
)
def test_a_note_that_no_agent_could_have_sent_is_left_out(wrong: UsageNote) -> None:
    assert checked(wrong) is None
    assert checked(note(tenant="a-")) is not None
