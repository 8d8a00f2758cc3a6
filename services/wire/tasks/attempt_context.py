"""Pure: the trace context of an attempt at a task, which whoever knows the attempt can work out.

An attempt is a trace of its own. The next one, on another node, links to it, and so may whoever
reads of it in the task: nothing is stored for that but when it began.
"""

import hashlib

from forebay.v1.task_pb2 import TaskAttempt
from services.runtime import telemetry


def ids(deployment: str, task_id: str, start_ns: int) -> tuple[int, int]:
    """Trace id and span id of an attempt, neither of them 0.

    Args:
        deployment: id of the deployment.
        task_id: id of the task.
        start_ns: when the attempt began, in nanoseconds since the epoch, as its record has it.
    """
    text = f"forebay attempt {deployment}/{task_id}/{start_ns}"
    digest = hashlib.sha256(text.encode()).digest()
    return int.from_bytes(digest[:16]) or 1, int.from_bytes(digest[16:24]) or 1


def traceparent(deployment: str, task_id: str, attempt: TaskAttempt) -> str:
    """W3C context of an attempt that has ended."""
    trace, span = ids(deployment, task_id, attempt.start_time.ToNanoseconds())
    return telemetry.traceparent_of(trace, span, sampled=True)
