"""What all replicas of a node share."""

from collections.abc import Callable
from dataclasses import dataclass

from services.node_agent.models.model_cache import ModelCache
from services.node_agent.runtime import Runtime
from services.node_agent.settings import NodeAgentSettings
from services.node_agent.tasks.usage_notes import UsageNotes
from services.runtime.clock import Clock
from services.wire.nats_link import NatsLink
from services.wire.server_clock import ServerClock
from services.wire.tasks.ledger import TaskLedger


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What all replicas of a node share.

    Attributes:
        settings: of the agent.
        runtime: starts Tritons.
        models: unpacked models.
        link: to NATS.
        clock: this machine's.
        server_clock: nats-server's.
        ledger: where what becomes of tasks is written down.
        usage: what is done for whom.
        changed: called whenever the state of a replica changes.
    """

    settings: NodeAgentSettings
    runtime: Runtime
    models: ModelCache
    link: NatsLink
    clock: Clock
    server_clock: ServerClock
    ledger: TaskLedger
    usage: UsageNotes
    changed: Callable[[], None]
