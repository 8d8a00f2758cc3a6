"""Pure: what a submitted task must be, and how it is stored. Ids of tasks without a key are random.

Ranges and defaults are those that protos/forebay/v1/task.proto gives.
"""

import hashlib
import os
import re
from datetime import timedelta
from urllib.parse import urlsplit

from google.protobuf.duration_pb2 import Duration

from forebay.v1.deployment_pb2 import Deployment
from forebay.v1.envelope_pb2 import OUTCOME_INVALID_ARGUMENT
from forebay.v1.task_pb2 import SubmitTaskRequest, Task
from forebay.v1.task_record_pb2 import TaskEnvelope
from services.runtime import telemetry
from services.wire import names, request_check
from services.wire.outcomes import OutcomeError

DEFAULT_MAX_RETRIES = 3
MAX_RETRIES = 20
DEFAULT_MIN_BACKOFF_S = 1.0
MAX_MIN_BACKOFF_S = 3600.0
DEFAULT_MAX_BACKOFF_S = 60.0
MAX_MAX_BACKOFF_S = 24 * 3600.0
DEFAULT_REQUEST_TIMEOUT_S = 60.0
MIN_ATTEMPT_TIMEOUT_S = 0.001
MAX_ATTEMPT_TIMEOUT_S = 24 * 3600.0
DEFAULT_TTL_S = 24 * 3600.0
MAX_TTL_S = 30 * 24 * 3600.0
MAX_LABELS = 16
MAX_LABEL_LENGTH = 63
MAX_CALLBACK_URL_LENGTH = 2000
MAX_IDEMPOTENCY_KEY_LENGTH = 255

_BATCH = re.compile(r"[a-z][a-z0-9-]{0,62}")
_URL_CHARACTERS = re.compile(r"[!-~]+")
_DIGITS = "0123456789abcdefghijklmnopqrstuv"
_ID_DIGITS = 25
_TIME_BITS, _RANDOM_BITS = 48, 5 * _ID_DIGITS - 48

_OUTPUT_ONLY = (
    "name",
    "state",
    "tenant",
    "create_time",
    "start_time",
    "end_time",
    "expire_time",
    "next_attempt_time",
    "attempts",
    "attempt_count",
    "outcome",
    "error",
    "trace_id",
    "retry_of",
    "result_size_bytes",
    "result",
    "content_digest",
)


def envelope_of(
    submitted: SubmitTaskRequest,
    deployment: Deployment,
    tenant: str,
    now_s: float,
    traceparent: str = "",
    tracestate: str = "",
    retry_of: Task | None = None,
) -> TaskEnvelope:
    """The task as it is stored, every option filled in.

    Args:
        submitted: what the caller sent; output-only fields of its task are passed over.
        deployment: the one that the request names.
        tenant: whom the call speaks for.
        now_s: seconds since the epoch on nats-server's clock, as far as it is known.
        traceparent: W3C context of the call, or empty.
        tracestate: vendor part of it.
        retry_of: the failed task that this one tries again; the same makes the same id.

    Raises:
        OutcomeError: INVALID_ARGUMENT; it names the field, its value and what is legal.
    """
    deployment_id = names.deployment_id(deployment.name)
    body = _checked_body(submitted, deployment_id)
    task = Task()
    task.CopyFrom(submitted.task)
    for field in _OUTPUT_ONLY:
        task.ClearField(field)
    # Before defaults are filled in: those of a deployment may change between two submissions.
    options = task.SerializeToString(deterministic=True)
    _check_texts(task)
    _fill_numbers(task)
    _fill_times(task, deployment)
    if retry_of is not None:
        task_id = _retry_id(retry_of)
        task.retry_of = retry_of.name
    else:
        task_id = keyed_id(tenant, deployment_id, task) or _fresh_id(now_s)
    task.name = f"{deployment.name}/tasks/{task_id}"
    task.state = Task.STATE_QUEUED
    task.tenant = tenant
    created_ns = int(now_s * 1e9)
    task.create_time.FromNanoseconds(created_ns)
    task.expire_time.FromNanoseconds(created_ns + task.ttl.ToNanoseconds())
    task.trace_id = telemetry.trace_id(traceparent) or ""
    task.content_digest = _digest(body, options)
    return TaskEnvelope(
        task_id=task_id,
        deployment=deployment_id,
        task=task,
        body=body,
        traceparent=traceparent,
        tracestate=tracestate,
    )


def is_keyed(task: Task) -> bool:
    """Whether the caller chose the task's identity, so that it may have been stored before."""
    return is_known_for_life(task) or task.HasField("batch_index")


def is_known_for_life(task: Task) -> bool:
    """Whether that identity holds as long as the task is kept, not for JetStream's window only."""
    return bool(task.idempotency_key or task.retry_of)


def check_batch(field: str, batch: str) -> None:
    """Checks what a field names as a batch.

    Raises:
        OutcomeError: INVALID_ARGUMENT if it cannot name one.
    """
    if _BATCH.fullmatch(batch) is None:
        raise _invalid(
            f"{field} is {names.quoted(batch)}; legal are 1 to 63 of a-z, 0-9 and '-', starting "
            "with a letter"
        )


def _checked_body(submitted: SubmitTaskRequest, deployment_id: str) -> bytes:
    if not submitted.HasField("request"):
        raise _invalid("request is missing; it is the inference that the task runs")
    request = submitted.request
    # Parameters are a map, whose order must not make another content of it.
    body: bytes = request.SerializeToString(deterministic=True)
    request_check.check_message(request, len(body))
    if request.model_name != deployment_id:
        raise _invalid(
            f"request.model_name is {names.quoted(request.model_name)}; "
            f"this task is for {deployment_id}"
        )
    if request.idempotency_key:
        raise _invalid(
            "request.idempotency_key is set; it must be empty here: put the key into "
            "task.idempotency_key"
        )
    return body


def _check_texts(task: Task) -> None:
    if task.batch:
        check_batch("task.batch", task.batch)
    if task.HasField("batch_index"):
        if task.batch_index < 0:
            raise _invalid(f"task.batch_index is {task.batch_index}; legal is 0 and above")
        if not task.batch:
            raise _invalid(
                f"task.batch_index is {task.batch_index} without a task.batch; name the batch"
            )
    if task.labels:
        _check_labels(task)
    if len(task.idempotency_key) > MAX_IDEMPOTENCY_KEY_LENGTH:
        raise _invalid(
            f"task.idempotency_key has {len(task.idempotency_key)} characters; "
            f"at most {MAX_IDEMPOTENCY_KEY_LENGTH} are allowed"
        )
    if task.callback_url:
        _check_callback_url(task.callback_url)


def _check_labels(task: Task) -> None:
    if len(task.labels) > MAX_LABELS:
        raise _invalid(
            f"task.labels has {len(task.labels)} entries; at most {MAX_LABELS} are legal"
        )
    for key, value in task.labels.items():
        if not 1 <= len(key) <= MAX_LABEL_LENGTH:
            raise _invalid(
                f"task.labels has the key {names.quoted(key)} of {len(key)} characters; "
                f"legal are 1 to {MAX_LABEL_LENGTH}"
            )
        if len(value) > MAX_LABEL_LENGTH:
            raise _invalid(
                f"task.labels[{names.quoted(key)}] has {len(value)} characters; "
                f"at most {MAX_LABEL_LENGTH} are legal"
            )


def _check_callback_url(url: str) -> None:
    legal = (
        f"legal is an http or https address of at most {MAX_CALLBACK_URL_LENGTH} printable ASCII "
        "characters with a host, and without a user or a password"
    )
    if len(url) > MAX_CALLBACK_URL_LENGTH:
        raise _invalid(f"task.callback_url has {len(url)} characters; {legal}")
    try:
        parts = urlsplit(url)
        # Reading the port checks it.
        is_legal = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
        is_legal = (
            is_legal and parts.username is None and _URL_CHARACTERS.fullmatch(url) is not None
        )
    except ValueError:
        is_legal = False
    if not is_legal:
        # Not quoted: what is refused is logged, and there may be a password or a token in it.
        scheme, slashes, rest = url.partition("://")
        begins = f"begins with {names.quoted(scheme)}" if slashes else "has no scheme"
        at = " and has an '@'" if "@" in rest else ""
        raise _invalid(f"task.callback_url {begins}{at}; {legal}")


def _fill_numbers(task: Task) -> None:
    if not task.priority:
        task.priority = Task.PRIORITY_NORMAL
    elif task.priority not in Task.Priority.values():
        raise _invalid(
            f"task.priority is {int(task.priority)}; legal are 1 (PRIORITY_HIGH), "
            "2 (PRIORITY_NORMAL) and 3 (PRIORITY_LOW)"
        )
    if not task.HasField("max_retries"):
        task.max_retries = DEFAULT_MAX_RETRIES
    elif not 0 <= task.max_retries <= MAX_RETRIES:
        raise _invalid(f"task.max_retries is {task.max_retries}; legal is 0 to {MAX_RETRIES}")


def _fill_times(task: Task, deployment: Deployment) -> None:
    timeout_s = deployment.request_timeout.ToNanoseconds() / 1e9 or DEFAULT_REQUEST_TIMEOUT_S
    min_s = _fill(task, "min_backoff", DEFAULT_MIN_BACKOFF_S, 0.0, MAX_MIN_BACKOFF_S)
    longer_s = max(min_s, DEFAULT_MAX_BACKOFF_S)
    max_s = _fill(task, "max_backoff", longer_s, 0.0, MAX_MAX_BACKOFF_S)
    if max_s < min_s:
        raise _invalid(
            f"task.max_backoff is {max_s:.10g} s, less than task.min_backoff with {min_s:.10g} s; "
            "legal is at least that"
        )
    _fill(task, "attempt_timeout", timeout_s, MIN_ATTEMPT_TIMEOUT_S, MAX_ATTEMPT_TIMEOUT_S)
    _fill(task, "ttl", DEFAULT_TTL_S, 1.0, MAX_TTL_S)
    _fill(task, "result_ttl", DEFAULT_TTL_S, 1.0, MAX_TTL_S)


def _fill(task: Task, field: str, default_s: float, least_s: float, most_s: float) -> float:
    """Sets a duration that is unset, checks one that is set; returns it in seconds."""
    duration: Duration = getattr(task, field)
    if not task.HasField(field):
        duration.FromTimedelta(timedelta(seconds=default_s))
        return default_s
    value_s: float = duration.seconds + duration.nanos / 1e9
    # Well-formed durations alone have nanoseconds of the same sign and below a second.
    if not (least_s <= value_s <= most_s and 0 <= duration.nanos < 10**9):
        raise _invalid(
            f"task.{field} is {value_s:.10g} s; legal is {least_s:.10g} s to {most_s:.10g} s"
        )
    return value_s


def _digest(body: bytes, options: bytes) -> bytes:
    digest = hashlib.sha256(len(body).to_bytes(8))
    digest.update(body)
    digest.update(options)
    return digest.digest()


def keyed_id(tenant: str, deployment_id: str, task: Task) -> str:
    """The id that a key stands for; empty without a key."""
    if task.idempotency_key:
        key = f"key\n{task.idempotency_key}"
    elif task.HasField("batch_index"):
        key = f"batch\n{task.batch}\n{task.batch_index}"
    else:
        return ""
    # No part before the key can hold a line break.
    return "k" + _hashed(f"{tenant}\n{deployment_id}\n{key}")


def _retry_id(failed: Task) -> str:
    """The id of the one task that tries a failed one again."""
    # A key that was purged may be used again, and fail again: that is another task.
    return "r" + _hashed(f"{failed.name}\n{failed.create_time.ToNanoseconds()}")


def _fresh_id(now_s: float) -> str:
    """A new id; later ones sort after earlier ones, by the millisecond."""
    made_ms = int(now_s * 1000) & ((1 << _TIME_BITS) - 1)
    random = int.from_bytes(os.urandom(16)) & ((1 << _RANDOM_BITS) - 1)
    return "t" + _base32(made_ms << _RANDOM_BITS | random)


def _hashed(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return _base32(int.from_bytes(digest[:16]) >> (128 - 5 * _ID_DIGITS))


def _base32(number: int) -> str:
    """Digits whose order is that of the numbers (RFC 4648, base 32 with extended hex alphabet)."""
    shifts = range(5 * (_ID_DIGITS - 1), -1, -5)
    return "".join([_DIGITS[number >> shift & 31] for shift in shifts])


def _invalid(message: str) -> OutcomeError:
    return OutcomeError(OUTCOME_INVALID_ARGUMENT, message)
