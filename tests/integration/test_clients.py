"""The Python clients against a whole mesh with a real Triton."""

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import numpy as np
import pytest

import forebay
from forebay.tensors import NUMPY_TYPES
from tests.support.eventually import eventually
from tests.support.forebay_up import ForebayUp, write_echo


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForebayUp]:
    directory = tmp_path_factory.mktemp("clients")
    with ForebayUp(directory / "state") as up:
        up.forebay("deploy", write_echo(directory, max_ongoing_requests=4)).ok()
        up.forebay("deploy", write_echo(directory, name="one-place", max_queued_requests=1)).ok()
        yield up


@pytest.fixture
def client(mesh: ForebayUp) -> Iterator[forebay.Client]:
    with forebay.Client(mesh.mesh["router"]) as client:
        yield client


@pytest.mark.parametrize("datatype", sorted(NUMPY_TYPES))
def test_every_type_comes_back_from_triton_as_it_went(
    client: forebay.Client, datatype: str
) -> None:
    array = np.array([0, 1, 1, 0]).astype(NUMPY_TYPES[datatype])
    result = client.infer("echo", {f"IN_{datatype}": array}, timeout_s=60)
    assert result[f"OUT_{datatype}"].dtype == array.dtype
    assert np.array_equal(result[f"OUT_{datatype}"], array)


def test_bytes_come_back_as_bytes_and_say_which_request_it_was(client: forebay.Client) -> None:
    elements = [b"\x00\xff\x00", "text", b""]
    result = client.infer("echo", {"IN_STRING": np.array(elements, dtype=object)}, timeout_s=60)
    assert result["OUT_STRING"].tolist() == [b"\x00\xff\x00", b"text", b""]
    assert (list(result), result.index, result.final) == (["OUT_STRING"], 0, True)
    assert result.model_version == "1"
    assert result.request_id is not None
    assert len(result.request_id) == 32
    assert result.trace_id is not None


def test_only_the_wanted_outputs_come_back(client: forebay.Client) -> None:
    inputs = {"IN_FP32": np.ones(1, np.float32), "IN_INT8": np.ones(1, np.int8)}
    assert list(client.infer("echo", inputs, outputs=["OUT_INT8"], timeout_s=60)) == ["OUT_INT8"]


def test_six_megabytes_go_through(client: forebay.Client) -> None:
    array = np.arange(1_500_000, dtype=np.float32)
    result = client.infer("echo", {"IN_FP32": array}, timeout_s=60)
    assert np.array_equal(result["OUT_FP32"], array)


def test_threads_share_a_client(client: forebay.Client) -> None:
    def call(number: int) -> int:
        array = np.array([number], np.int32)
        return int(client.infer("echo", {"IN_INT32": array}, timeout_s=60)["OUT_INT32"][0])

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(call, range(50))) == list(range(50))


def test_an_unknown_deployment_is_its_own_error(client: forebay.Client) -> None:
    with pytest.raises(forebay.DeploymentNotFoundError) as caught:
        client.infer("nowhere", {}, timeout_s=60)
    assert caught.value.status is grpc.StatusCode.NOT_FOUND
    assert "nowhere" in caught.value.message


def test_what_the_model_does_not_take_is_refused_in_tritons_words(client: forebay.Client) -> None:
    with pytest.raises(forebay.InvalidRequestError, match="WRONG") as caught:
        client.infer("echo", {"WRONG": np.ones(1, np.float32)}, timeout_s=60)
    assert caught.value.request_id is not None
    assert caught.value.trace_id is not None


def test_what_the_model_raises_reaches_the_caller(client: forebay.Client) -> None:
    with pytest.raises(forebay.ModelError, match="told to raise"):
        client.infer("echo", {"IN_STRING": np.array(["raise"], dtype=object)}, timeout_s=60)


def test_a_body_over_the_limit_is_refused_and_the_next_call_works(client: forebay.Client) -> None:
    with pytest.raises(forebay.InvalidRequestError, match="8"):
        client.infer("echo", {"IN_UINT8": np.zeros(9_000_000, np.uint8)}, timeout_s=60)
    client.infer("echo", {"IN_UINT8": np.zeros(9, np.uint8)}, timeout_s=60)


def test_an_array_that_cannot_be_sent_never_leaves(client: forebay.Client) -> None:
    with pytest.raises(forebay.InvalidRequestError, match="complex128") as caught:
        client.infer("echo", {"IN_FP32": np.array([1j])})
    assert caught.value.status is None


def test_the_deadline_ends_a_call(client: forebay.Client) -> None:
    inputs = {"IN_FP32": np.ones(1, np.float32), "WAIT_S": np.array([2.0], np.float32)}
    with pytest.raises(forebay.DeadlineExceededError):
        client.infer("echo", inputs, timeout_s=0.3)


def test_the_same_key_and_content_return_the_first_answer(client: forebay.Client) -> None:
    inputs = {"IN_INT32": np.array([7], np.int32)}
    first = client.infer("echo", inputs, timeout_s=60, idempotency_key="once")
    again = client.infer("echo", inputs, timeout_s=60, idempotency_key="once")
    assert again["OUT_INT32"].tolist() == first["OUT_INT32"].tolist() == [7]
    assert again.request_id == first.request_id


async def test_a_full_queue_says_when_to_come_back(mesh: ForebayUp) -> None:
    inputs = {"IN_FP32": np.ones(1, np.float32), "WAIT_S": np.array([4.0], np.float32)}
    async with forebay.AsyncClient(mesh.mesh["router"]) as client:
        calls = (client.infer("one-place", inputs, timeout_s=60) for _ in range(4))
        results = await asyncio.gather(*calls, return_exceptions=True)
    refused = [result for result in results if isinstance(result, forebay.QueueFullError)]
    assert len(refused) == 3
    assert all(error.retry_after_s and error.retry_after_s > 0 for error in refused)


async def test_a_cancelled_task_cancels_its_call(mesh: ForebayUp) -> None:
    """Told by the one place in the queue, which the call takes and its cancellation frees."""
    slow = {"IN_FP32": np.ones(1, np.float32), "WAIT_S": np.array([20.0], np.float32)}
    async with forebay.AsyncClient(mesh.mesh["router"]) as client:

        async def is_taken() -> bool:
            try:
                await client.infer("one-place", {"IN_INT8": np.ones(1, np.int8)}, timeout_s=0.3)
            except forebay.QueueFullError:
                return True
            except forebay.DeadlineExceededError:
                return False
            return False

        async def is_free() -> bool:
            return not await is_taken()

        async def take() -> None:
            while True:
                try:
                    await client.infer("one-place", slow, timeout_s=60)
                except forebay.QueueFullError:
                    # A probe was faster: its place is free again in a moment.
                    continue

        task = asyncio.create_task(take())
        await eventually(is_taken, timeout_s=8)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        # Long before the model has done with it, after 20 s.
        await eventually(is_free, timeout_s=10)


def test_nobody_at_the_address_is_unavailable() -> None:
    with forebay.Client("127.0.0.1:1") as client:
        with pytest.raises(forebay.UnavailableError, match=r"127\.0\.0\.1:1"):
            client.infer("echo", {}, timeout_s=30)


def test_the_address_is_that_of_the_local_mesh(
    mesh: ForebayUp, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("FOREBAY_ROUTER", raising=False)
    monkeypatch.setenv("FOREBAY_STATE_DIR", str(mesh.state_dir))
    with forebay.Client() as client:
        assert client.address == mesh.mesh["router"]
    monkeypatch.setenv("FOREBAY_STATE_DIR", str(tmp_path))
    with forebay.Client() as client:
        assert client.address == "127.0.0.1:7701"
