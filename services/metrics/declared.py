"""What deployments declare that their metrics are compared with. Pure."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from google.protobuf.duration_pb2 import Duration

from forebay.v1.deployment_pb2 import Deployment
from forebay.v1.scaling_pb2 import Policy
from services.wire.kept import Entry


@dataclass(frozen=True, slots=True)
class Declared:
    """What a deployment declares; None is not declared.

    Attributes:
        request_timeout_s: what a call without a deadline gets, in seconds.
        desired_latency_s: the smallest that one of its policies names, in seconds.
        gpu_memory_bytes: what one replica needs.
    """

    request_timeout_s: float | None
    desired_latency_s: float | None
    gpu_memory_bytes: int | None


class DeclaredDeployments:
    """What all deployments declare, each read once for each change."""

    def __init__(self) -> None:
        """Nothing is declared."""
        self._current: dict[str, tuple[int, Declared]] = {}

    def update(self, entries: Mapping[str, Entry]) -> dict[str, Declared]:
        """Takes what is kept now, by id, and returns what it says, by id."""
        for gone in self._current.keys() - entries.keys():
            del self._current[gone]
        for deployment, entry in entries.items():
            known = self._current.get(deployment)
            if known is None or known[0] != entry.revision:
                said = declared_of(Deployment.FromString(entry.value))
                self._current[deployment] = (entry.revision, said)
        return {deployment: said for deployment, (_, said) in self._current.items()}


def declared_of(deployment: Deployment) -> Declared:
    """What a deployment declares."""
    timeout_s = None
    if deployment.HasField("request_timeout"):
        timeout_s = _seconds(deployment.request_timeout)
    wanted_s = [
        _seconds(policy.request_latency.desired_latency)
        for policy in _policies(deployment)
        if policy.HasField("request_latency")
    ]
    memory_bytes = deployment.resources.gpu_memory_bytes
    return Declared(timeout_s, min(wanted_s, default=None), memory_bytes or None)


def _policies(deployment: Deployment) -> Iterator[Policy]:
    policy = deployment.scaling.policy
    yield policy
    yield from policy.max_of.policies


def _seconds(duration: Duration) -> float:
    return float(duration.ToNanoseconds() / 1e9)
