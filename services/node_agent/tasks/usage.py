"""Pure: sums what replicas did for whom, until it is written down."""

from forebay.v1.task_record_pb2 import UsageNote

MAX_KEYS = 1000
"""Pairs of tenant and batch, over all deployments, that are summed at a time."""


class UsageSums:
    """Work since the sums were last taken."""

    def __init__(self) -> None:
        """Nothing done."""
        self._sums: dict[tuple[str, str, str], list[float]] = {}

    @property
    def full(self) -> bool:
        """Whether the sums should be taken before more is added."""
        return len(self._sums) >= MAX_KEYS

    def add(
        self, deployment: str, tenant: str, batch: str, busy_s: float, slots: int, gpus: float
    ) -> None:
        """Adds an attempt that has ended.

        Args:
            deployment: id of the deployment.
            tenant: who submitted the task.
            batch: of the task, or empty.
            busy_s: time inside the replica.
            slots: of the replica; the attempt held one of them.
            gpus: of the replica.
        """
        sums = self._sums.setdefault((deployment, tenant, batch), [0, 0.0, 0.0, 0.0])
        replica_s = busy_s / slots
        sums[0] += 1
        sums[1] += busy_s
        sums[2] += replica_s
        sums[3] += replica_s * gpus

    def take(self) -> list[UsageNote]:
        """The sums, one note of each deployment, tenant and batch; what follows starts at zero."""
        taken, self._sums = self._sums, {}
        return [_note(key, sums) for key, sums in taken.items()]


def _note(key: tuple[str, str, str], sums: list[float]) -> UsageNote:
    deployment, tenant, batch = key
    note = UsageNote(deployment=deployment, tenant=tenant, batch=batch, attempt_count=int(sums[0]))
    note.busy_time.FromNanoseconds(int(sums[1] * 1e9))
    note.replica_time.FromNanoseconds(int(sums[2] * 1e9))
    note.gpu_time.FromNanoseconds(int(sums[3] * 1e9))
    return note
