"""Pure: which tasks a call is about, and where in the streams to go on."""

import base64
import binascii
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from forebay.v1.envelope_pb2 import OUTCOME_INVALID_ARGUMENT
from forebay.v1.task_pb2 import Task
from services.wire import names
from services.wire.outcomes import OutcomeError
from services.wire.pages import DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE
from services.wire.tasks import states, subjects
from services.wire.tasks.submission import check_batch

_MARK = re.compile(r"(queued|ended):(\d{1,18})")

NOT_ENDED = frozenset({states.QUEUED, states.RUNNING})


@dataclass(frozen=True, slots=True)
class Selection:
    """Tasks of one tenant.

    Attributes:
        tenant: whose.
        deployment: id of a deployment; `*` for all.
        batch: a batch; `*` for all tasks, also those of none.
        states: in one of these.
        labels: that have all of these.
    """

    tenant: str
    deployment: str
    batch: str
    states: frozenset[Task.State]
    labels: Mapping[str, str] = field(default_factory=dict)

    def has(self, task: Task) -> bool:
        """Whether a task is one of them, by what does not change in its life."""
        return task.tenant == self.tenant and all(
            task.labels.get(key) == value for key, value in self.labels.items()
        )

    @property
    def waiting_subject(self) -> str:
        """Where they wait."""
        return subjects.any_task(self.deployment, "*", self.batch)

    @property
    def ended_subject(self) -> str:
        """Where is kept that they have ended."""
        return subjects.ended(self.deployment, "*", self.batch)


@dataclass(frozen=True, slots=True)
class Mark:
    """Where a list goes on.

    Attributes:
        ended: in the stream of ended tasks, else in the queue.
        sequence: the first message to look at.
    """

    ended: bool
    sequence: int

    def token(self) -> str:
        """As a page token."""
        text = f"{'ended' if self.ended else 'queued'}:{self.sequence}"
        return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def selection_of(
    tenant: str,
    deployment: str,
    batch: str,
    wanted: Iterable[Task.State],
    otherwise: Iterable[Task.State],
    labels: Mapping[str, str] | None = None,
) -> Selection:
    """What a call's filters select.

    Args:
        tenant: whom it speaks for.
        deployment: id of a deployment, or empty for all.
        batch: a batch, or empty for all.
        wanted: states it names.
        otherwise: states it is about if it names none.
        labels: labels it names.

    Raises:
        OutcomeError: INVALID_ARGUMENT if a batch or a state is none.
    """
    if batch:
        check_batch("batch", batch)
    chosen = frozenset(wanted)
    for state in chosen:
        if state not in states.NEXT:
            legal = ", ".join(Task.State.Name(each) for each in states.NEXT)
            raise _invalid(f"states has {int(state)}; legal are {legal}")
    return Selection(
        tenant, deployment or "*", batch or "*", chosen or frozenset(otherwise), dict(labels or {})
    )


def page_size_of(page_size: int) -> int:
    """How many tasks a page may have.

    Raises:
        OutcomeError: INVALID_ARGUMENT if it is negative.
    """
    if page_size < 0:
        raise _invalid(f"page_size is {page_size}; legal is 0 (for {DEFAULT_PAGE_SIZE}) and above")
    return min(page_size or DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE)


def mark_of(page_token: str) -> Mark:
    """Where a page begins.

    Raises:
        OutcomeError: INVALID_ARGUMENT if no page gave the token.
    """
    if not page_token:
        return Mark(ended=False, sequence=1)
    try:
        padded = page_token + "=" * (-len(page_token) % 4)
        found = _MARK.fullmatch(base64.b64decode(padded, altchars=b"-_", validate=True).decode())
    except (binascii.Error, ValueError):
        found = None
    if found is None:
        raise _invalid(
            f"page_token {names.quoted(page_token)} was not given by a page before; "
            "begin again without one"
        )
    return Mark(ended=found[1] == "ended", sequence=int(found[2]))


def _invalid(message: str) -> OutcomeError:
    return OutcomeError(OUTCOME_INVALID_ARGUMENT, message)
