"""`forebay infer`: files or arrays to a deployment, and what came back."""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2, service_pb2_grpc

from forebay import addresses
from forebay.aio import AsyncClient
from forebay.cli import function_inputs
from forebay.cli.failure import FAILED, NOT_FOUND, UNREACHABLE, USAGE, CliError
from forebay.cli.link import CALL_TIMEOUT_S, Where, link_to
from forebay.cli.output import Output, print_json, print_table, progress
from forebay.errors import DeploymentNotFoundError, ForebayError, UnavailableError
from forebay.inference import InferResult
from forebay.tensors import BF16, BYTES, NUMPY_TYPES

CONCURRENT_REQUESTS = 8
_SHOWN_ELEMENTS = 8

Inputs = dict[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Job:
    """One request to make.

    Attributes:
        label: what the result is shown under: the file, or the inputs' names.
        inputs: arrays by input name.
        idempotency_key: of this request.
    """

    label: str
    inputs: Inputs
    idempotency_key: str | None = None


@dataclass(frozen=True, slots=True)
class Done:
    """A request that has ended: with a result or an error."""

    label: str
    result: InferResult | None
    error: ForebayError | None
    duration_s: float

    @property
    def request_id(self) -> str | None:
        """Identifies the request in logs and traces."""
        ended = self.result or self.error
        return ended.request_id if ended else None

    @property
    def trace_id(self) -> str | None:
        """Trace id of the request."""
        ended = self.result or self.error
        return ended.trace_id if ended else None


@dataclass(frozen=True, slots=True)
class InferOptions:
    """What the command line says about the requests."""

    timeout_s: float | None = None
    idempotency_key: str | None = None
    verbose: bool = False
    output: Output = Output.TABLE


async def run(
    name: str, files: Sequence[Path], given: Sequence[str], where: Where, options: InferOptions
) -> None:
    """Makes the requests and prints what came back.

    Raises:
        CliError: if they cannot be made, or if one fails.
    """
    if bool(files) == bool(given):
        raise CliError("name files, or inputs with --input NAME=VALUE: one of the two", USAGE)
    with progress(f"asking {name}") as tell:
        metadata = await model_metadata(name, where, options.timeout_s)
        jobs = _file_jobs(metadata, files, options) if files else [_given_job(metadata, given)]
        if given and options.idempotency_key:
            jobs = [Job(jobs[0].label, jobs[0].inputs, options.idempotency_key)]
        done_count = 0

        def count(_: Done) -> None:
            nonlocal done_count
            done_count += 1
            tell.tick(f"{done_count} of {len(jobs)} requests answered")

        async with AsyncClient(where.address(addresses.ROUTER)) as client:
            results = await infer_all(client, name, jobs, options.timeout_s, count)
    show(results, options)
    _raise_first(results)


async def model_metadata(name: str, where: Where, timeout_s: float | None) -> Any:
    """Inputs and outputs of a deployment's model, as the router tells them.

    Raises:
        CliError: if the router cannot be reached or does not know the deployment.
    """
    async with link_to(addresses.ROUTER, where) as router:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(router.channel)
        request = service_pb2.ModelMetadataRequest(name=name)
        return await router.call(stub.ModelMetadata, request, timeout_s or CALL_TIMEOUT_S)


async def infer_all(
    client: AsyncClient,
    name: str,
    jobs: Sequence[Job],
    timeout_s: float | None,
    each: Any = lambda _: None,
) -> list[Done]:
    """Makes requests, a few at a time; returns how each ended, in their order."""
    slots = asyncio.Semaphore(CONCURRENT_REQUESTS)
    clock = asyncio.get_running_loop()

    async def one(job: Job) -> Done:
        async with slots:
            started_s = clock.time()
            result, failure = None, None
            try:
                result = await client.infer(
                    name,
                    job.inputs,
                    timeout_s=timeout_s,
                    idempotency_key=job.idempotency_key,
                )
            except ForebayError as error:
                failure = error
            ended = Done(job.label, result, failure, clock.time() - started_s)
            each(ended)
            return ended

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(job)) for job in jobs]
    return [task.result() for task in tasks]


def file_input(metadata: Any) -> tuple[str, list[int]] | None:
    """Name and shape of the one BYTES input of a model that takes files; None if it takes none."""
    if len(metadata.inputs) != 1 or metadata.inputs[0].datatype != BYTES:
        return None
    (only,) = metadata.inputs
    shape = [max(1, dimension) for dimension in only.shape]
    return (only.name, shape) if np.prod(shape, dtype=int) == 1 else None


def file_job(name: str, shape: Sequence[int], file: Path, key: str | None = None) -> Job:
    """The request that sends a file's content as one element.

    Raises:
        CliError: if the file cannot be read.
    """
    array = np.empty(1, dtype=object)
    try:
        array[0] = file.read_bytes()
    except OSError as error:
        raise CliError(f"cannot read {file}: {error.strerror}", USAGE) from error
    return Job(str(file), {name: array.reshape(shape)}, key)


def one_job(metadata: Any, file: Path | None, given: Sequence[str]) -> Job:
    """The request for one file, or for given inputs.

    Args:
        metadata: of the model.
        file: its content goes into the one BYTES input; None: `given` says the inputs.
        given: `NAME=VALUE` each.

    Raises:
        CliError: if the model does not take that.
    """
    if file is None:
        return _given_job(metadata, given)
    (job,) = _file_jobs(metadata, [file], InferOptions())
    return job


def _file_jobs(metadata: Any, files: Sequence[Path], options: InferOptions) -> list[Job]:
    key = options.idempotency_key
    # A key stands for one content: with several files each gets a key of its own.
    keys = [f"{key}-{place}" if key and len(files) > 1 else key for place in range(len(files))]
    if function_inputs.is_function(metadata):
        return [
            Job(str(file), function_inputs.of_file(file), own)
            for file, own in zip(files, keys, strict=True)
        ]
    found = file_input(metadata)
    if found is None:
        raise CliError(
            f"{metadata.name} does not take files: its inputs are {_described(metadata)}. "
            "Give them with --input NAME=@file.npy or --input NAME='[[1, 2]]'.",
            USAGE,
        )
    return [file_job(*found, file, own) for file, own in zip(files, keys, strict=True)]


def _given_job(metadata: Any, given: Sequence[str]) -> Job:
    if function_inputs.is_function(metadata):
        return Job(", ".join(given), function_inputs.of_words(given))
    declared = {tensor.name: tensor.datatype for tensor in metadata.inputs}
    inputs: Inputs = {}
    for word in given:
        name, separator, value = word.partition("=")
        if not separator or name not in declared:
            raise CliError(
                f"--input {word!r}: write NAME=VALUE, where NAME is one of the inputs "
                f"{_described(metadata)}",
                USAGE,
            )
        inputs[name] = _array(name, declared[name], value)
    return Job(", ".join(inputs), inputs)


def _array(name: str, datatype: str, value: str) -> NDArray[Any]:
    if value.startswith("@"):
        try:
            array: NDArray[Any] = np.load(value[1:], allow_pickle=False)
        except (OSError, ValueError) as error:
            raise CliError(f"--input {name}: cannot read {value[1:]}: {error}", USAGE) from error
        return array
    if datatype == BF16:
        raise CliError(f"--input {name}: BF16 cannot be written as JSON; give a .npy file", USAGE)
    dtype = np.dtype(object) if datatype == BYTES else NUMPY_TYPES[datatype]
    try:
        return np.array(json.loads(value), dtype=dtype)
    except (ValueError, TypeError, OverflowError) as error:
        raise CliError(
            f"--input {name}: {value!r} is not a JSON array of {datatype}: {error}", USAGE
        ) from error


def _described(metadata: Any) -> str:
    return ", ".join(
        f"{tensor.name} ({tensor.datatype} {list(tensor.shape)})" for tensor in metadata.inputs
    )


def show(results: Sequence[Done], options: InferOptions) -> None:
    """Prints results as a table or as JSON."""
    if options.output is Output.JSON:
        print_json({"results": [plain(done) for done in results]})
        return
    said = [_outputs(done.result) if done.result else {} for done in results]
    names = list(dict.fromkeys(name for outputs in said for name in outputs))
    columns = ["INPUT", *names, "MS"]
    if options.verbose:
        columns += ["REQUEST", "TRACE"]
    if any(done.error for done in results):
        columns.append("ERROR")
    rows = []
    for done, outputs in zip(results, said, strict=True):
        row = [done.label]
        row += [_cell(outputs[name]) if name in outputs else "" for name in names]
        row.append(f"{done.duration_s * 1000:.1f}")
        if options.verbose:
            row += [done.request_id or "", done.trace_id or ""]
        if columns[-1] == "ERROR":
            row.append(done.error.message if done.error else "")
        rows.append(row)
    print_table(columns, rows)


def plain(done: Done) -> dict[str, Any]:
    """A request that has ended, as JSON's types."""
    outputs = _outputs(done.result) if done.result else None
    if outputs is not None:
        outputs = {
            name: plain_array(value) if isinstance(value, np.ndarray) else value
            for name, value in outputs.items()
        }
    return {
        "input": done.label,
        "outputs": outputs,
        "model_version": done.result.model_version if done.result else None,
        "duration_s": round(done.duration_s, 6),
        "request_id": done.request_id,
        "trace_id": done.trace_id,
        "error": done.error.message if done.error else None,
        "status": done.error.status.name if done.error and done.error.status else None,
    }


def _outputs(result: InferResult) -> dict[str, Any]:
    """Arrays by name; of a function, what it returned."""
    returned = function_inputs.returned(result)
    return dict(result) if returned is None else returned


def plain_array(array: NDArray[Any]) -> Any:
    """An array as nested lists; bytes as text, with replacement characters where it is none."""
    return _decoded(array.tolist())


def _decoded(value: Any) -> Any:
    if isinstance(value, list):
        return [_decoded(item) for item in value]
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def _cell(array: Any) -> str:
    if not isinstance(array, np.ndarray):
        return json.dumps(array, ensure_ascii=False)
    values = _decoded(array.ravel()[:_SHOWN_ELEMENTS].tolist())
    words = [f"{value:.4g}" if isinstance(value, float) else str(value) for value in values]
    if array.size > _SHOWN_ELEMENTS:
        words.append(f"… {'x'.join(str(size) for size in array.shape)}")
    return " ".join(words)


def _raise_first(results: Sequence[Done]) -> None:
    failed = [done.error for done in results if done.error]
    if not failed:
        return
    error = failed[0]
    exit_code = FAILED
    if isinstance(error, DeploymentNotFoundError):
        exit_code = NOT_FOUND
    elif isinstance(error, UnavailableError):
        exit_code = UNREACHABLE
    elif error.status is None:
        exit_code = USAGE
    hint = f" Try again in {error.retry_after_s:g} s." if error.retry_after_s else ""
    request = f" (request {error.request_id})" if error.request_id else ""
    raise CliError(
        f"{len(failed)} of {len(results)} requests failed: {error.message}{request}{hint}",
        exit_code,
    )
