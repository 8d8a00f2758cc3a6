"""What functions fail with."""

from forebay.errors import ForebayError, ModelError, TaskFailedError
from forebay.functions.runner import failures
from forebay.inference import InferResult


class PermanentError(Exception):
    """Raise it in a function when trying again cannot help: a task then fails at once."""

    forebay_permanent = True


class FunctionDefinitionError(ForebayError):
    """A function cannot become a deployment; the text says why and what to do."""


class DeploymentFailedError(ForebayError):
    """A function could not be deployed, or a replica of it failed."""


class FunctionError(ModelError):
    """The function raised.

    Attributes:
        kind: name of the exception's class, such as `ValueError`.
        reason: what the exception says.
        traceback: its last frames in your code, as text; empty if it was not raised there.
        permanent: whether it was a PermanentError.
    """

    kind: str
    reason: str
    traceback: str
    permanent: bool


def function_error(
    failure: failures.Failure, call: ForebayError | InferResult | None = None, before: str = ""
) -> FunctionError:
    """The error of a failure.

    Args:
        failure: what the runner said.
        call: the call that failed or whose result holds it, for its ids.
        before: what the message begins with.
    """
    made = FunctionError(
        f"{before}{failure.text}",
        status=getattr(call, "status", None),
        request_id=call.request_id if call else None,
        trace_id=call.trace_id if call else None,
    )
    made.kind, made.reason = failure.kind, failure.message
    made.traceback, made.permanent = failure.traceback, failure.permanent
    return made


def typed(error: ForebayError) -> ForebayError:
    """A FunctionError if the function raised; the error itself if something else went wrong."""
    if isinstance(error, TaskFailedError):
        failure = failures.parse(error.task.error)
        before = error.message.removesuffix(error.task.error)
    elif isinstance(error, ModelError) and not isinstance(error, FunctionError):
        failure, before = failures.parse(error.message), ""
    else:
        return error
    if failure is None:
        return error
    made = function_error(failure, error, before)
    made.__cause__ = error
    return made
