"""What a router counts, for its metrics and for ModelStatistics."""

from collections import defaultdict
from dataclasses import dataclass, field


@dataclass(slots=True)
class RouterCounters:
    """Counts since the router started.

    Attributes:
        calls: ended calls by (deployment, outcome label); bounded by the deployments there are.
        submitted_tasks: tasks stored or refused by (deployment, outcome label); bounded likewise.
        late_replies: replies that came after their call had ended.
    """

    calls: dict[tuple[str, str], int] = field(default_factory=lambda: defaultdict(int))
    submitted_tasks: dict[tuple[str, str], int] = field(default_factory=lambda: defaultdict(int))
    late_replies: int = 0
