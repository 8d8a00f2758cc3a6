"""Items to tasks and back, and the order in which results come out."""

import random
from typing import Any

import numpy as np
import pytest

from forebay import tensors
from forebay.errors import ForebayError, InvalidRequestError, InvalidResponseError
from forebay.inference import InferResult
from forebay.task_client.groups import Assembler, Group, ItemFailed, Made, split
from forebay.task_client.positions import Positions
from forebay.task_client.turns import Turns
from forebay.v1.task_pb2 import Task

TASK = Task(batch="b")


def assembled(items: list[Any], batch_size: int, **options: Any) -> list[Made]:
    assembler = Assembler("d", TASK, batch_size, **options)
    made = [one for position, item in enumerate(items) for one in assembler.add(position, item)]
    return made + assembler.end()


def decoded(group: Group, name: str) -> np.ndarray[Any, Any]:
    assert group.submission is not None
    request = group.submission.request
    index = [tensor.name for tensor in request.inputs].index(name)
    tensor = request.inputs[index]
    return tensors.decode(tensor.datatype, tensor.shape, request.raw_input_contents[index])


def errors(made: list[Made]) -> dict[int, str]:
    return {one.position: str(one.error) for one in made if isinstance(one, ItemFailed)}


def groups(made: list[Made]) -> list[Group]:
    return [one for one in made if isinstance(one, Group)]


def result(**outputs: Any) -> InferResult:
    return InferResult(
        {name: np.asarray(value) for name, value in outputs.items()}, "1", "t", None, 0, True
    )


def test_each_item_is_a_task_at_its_position() -> None:
    made = groups(assembled([{"X": [1, 2]}, {"X": [3]}], 1, outputs=["Y"], model_version="2"))
    assert [group.index for group in made] == [0, 1]
    submission = made[1].submission
    assert submission is not None
    assert (submission.task.batch, submission.task.batch_index) == ("b", 1)
    assert submission.request.model_version == "2"
    assert [output.name for output in submission.request.outputs] == ["Y"]
    assert decoded(made[1], "X").tolist() == [3]


def test_items_are_joined_along_the_first_axis_and_the_rest_is_a_smaller_task() -> None:
    made = groups(assembled([{"X": [[i, i]]} for i in range(5)], 2))
    assert [group.positions for group in made] == [[0, 1], [2, 3], [4]]
    assert decoded(made[1], "X").tolist() == [[2, 2], [3, 3]]
    assert [group.index for group in made] == [0, 1, 2]


def test_texts_of_any_length_are_joined() -> None:
    items = [{"X": np.array([[text]], dtype=object)} for text in (b"a\x00", b"", b"long" * 99)]
    (group,) = groups(assembled(items, 3))
    assert decoded(group, "X").ravel().tolist() == [b"a\x00", b"", b"long" * 99]


def test_bad_items_are_left_out_and_the_others_of_their_group_go() -> None:
    items = [
        {"X": [[1.0]]},
        {"X": [[1]]},
        {"X": [[1.0, 2.0]]},
        {"Y": [[1.0]]},
        {"X": 1.0},
        {"X": [[1j]]},
        7,
        {},
        {"X": [[2.0], [3.0]]},
        {"X": [[4.0]], "Y": [[1.0], [2.0]]},
    ]
    made = assembled(items, len(items))
    (group,) = groups(made)
    assert (group.positions, group.row_counts) == ([0, 8], [1, 2])
    said = errors(made)
    assert sorted(said) == [1, 2, 3, 4, 5, 6, 7, 9]
    assert "input 'X' is INT64 [1, 1], which cannot be joined with item 0, FP64 [1, 1]" in said[1]
    assert "same shape after the first axis" in said[2]
    assert "cannot be joined with those of item 0" in said[3]
    assert "has no axis" in said[4]
    assert "complex128" in said[5]
    assert "an item is int" in said[6]
    assert "differ in their first axis: 'X' 1, 'Y' 2" in said[9]


def test_a_group_ends_at_its_last_position_even_if_that_item_is_bad() -> None:
    made = assembled([{"X": [[1]]}, 7, {"X": [[2]]}], 2)
    assert [group.positions for group in groups(made)] == [[0], [2]]
    assert assembled([7, 7], 2)[0] == ItemFailed(0, made[0].error) or len(errors(made)) == 1


def test_a_group_without_a_good_item_is_no_task() -> None:
    made = assembled([7, 7, {"X": [[1]]}], 2)
    assert [group.index for group in groups(made)] == [1]


def test_what_encoding_raises_is_the_items_own() -> None:
    def encode(item: int) -> dict[str, list[int]]:
        if item == 1:
            raise KeyError("no such file")
        return {"X": [item]}

    made = assembled([0, 1, 2], 1, encode=encode)
    assert errors(made) == {1: "'no such file'"}
    assert [group.index for group in groups(made)] == [0, 2]


def test_what_is_larger_than_a_request_is_refused_before_it_is_sent() -> None:
    large = {"X": np.zeros((1, 9_000_000), np.uint8)}
    assert "a request has at most 8388608" in errors(assembled([large], 1))[0]
    half = {"X": np.zeros((1, 5_000_000), np.uint8)}
    said = errors(assembled([half, half], 2))
    assert sorted(said) == [0, 1]
    assert "a smaller batch_size helps" in said[0]


def test_outputs_are_split_as_inputs_were_joined() -> None:
    (group,) = groups(assembled([{"X": [[1]]}, {"X": [[2], [3]]}], 2))
    parts = split(group, result(Y=[[10], [20], [30]]))
    assert [position for position, _ in parts] == [0, 1]
    values = [part["Y"].tolist() for _, part in parts if isinstance(part, InferResult)]
    assert values == [[[10]], [[20], [30]]]


@pytest.mark.parametrize("output", [7, [1, 2]])
def test_an_answer_with_other_rows_is_an_error_of_every_item(output: Any) -> None:
    (group,) = groups(assembled([{"X": [[1]]}, {"X": [[2], [3]]}], 2))
    parts = split(group, result(Y=output))
    assert [position for position, _ in parts] == [0, 1]
    assert all(isinstance(part, InvalidResponseError) for _, part in parts)
    assert all("3 rows" in str(part) for _, part in parts)


def test_results_come_out_in_order_whatever_order_they_came_in() -> None:
    order = list(range(5, 105))
    random.Random(1).shuffle(order)
    turns: Turns[int] = Turns(ordered=True, first=5)
    came: list[int] = []
    for position in order:
        turns.put(position, -position)
        came += [value for _, value in turns.take(7)]
    while turns.ready_count:
        came += [value for _, value in turns.take(7)]
    assert came == [-position for position in range(5, 105)]


def test_results_come_out_as_they_came_if_no_order_is_wanted() -> None:
    turns: Turns[str] = Turns(ordered=False, first=0)
    turns.put(3, "c")
    turns.put(0, "a")
    assert turns.take(9) == [(3, "c"), (0, "a")]
    assert turns.take(9) == []


def test_positions_are_a_set_wherever_they_lie() -> None:
    positions = Positions()
    wanted = {0, 7, 8, 65_535, 65_536, 10**15}
    for position in [*wanted, 7, 0]:
        positions.add(position)
    assert len(positions) == len(wanted)
    assert all(position in positions for position in wanted)
    assert not {1, 9, 65_537, 10**15 + 1} & {
        p for p in (1, 9, 65_537, 10**15 + 1) if p in positions
    }


def test_errors_of_items_are_of_the_clients_kind() -> None:
    made = assembled([7], 1)
    assert isinstance(made[0], ItemFailed)
    assert isinstance(made[0].error, InvalidRequestError)
    assert isinstance(made[0].error, ForebayError)
