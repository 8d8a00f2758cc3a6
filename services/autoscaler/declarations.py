"""What is declared, in the forms that decisions take; each made once for each change. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass

from forebay.v1.deployment_pb2 import Deployment
from services.autoscaler.assignments import spec_of
from services.autoscaler.rollout import Spec
from services.autoscaler.scaling.declared import rules_of
from services.autoscaler.scaling.rules import Rules
from services.wire.kept import Entry


@dataclass(frozen=True, slots=True)
class Declaration:
    """A deployment that is declared.

    Attributes:
        deployment: as kept.
        spec: what its replicas are.
        rules: how many there are.
        revision: of the entry.
    """

    deployment: Deployment
    spec: Spec
    rules: Rules
    revision: int


class Declarations:
    """All that is declared, by id."""

    def __init__(self) -> None:
        """Nothing is declared."""
        self._current: dict[str, Declaration] = {}

    def update(self, entries: Mapping[str, Entry]) -> Mapping[str, Declaration]:
        """Takes what is kept now; only what changed is read."""
        for deployment_id in self._current.keys() - entries.keys():
            del self._current[deployment_id]
        for deployment_id, entry in entries.items():
            known = self._current.get(deployment_id)
            if known is None or known.revision != entry.revision:
                self._current[deployment_id] = _declaration(entry)
        return self._current


def _declaration(entry: Entry) -> Declaration:
    deployment = Deployment.FromString(entry.value)
    return Declaration(deployment, spec_of(deployment), rules_of(deployment), entry.revision)
