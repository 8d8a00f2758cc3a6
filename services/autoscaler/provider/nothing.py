"""The provider that does nothing: what is missing is shown, people act."""

from forebay.v1.autoscaler_pb2 import NodeDemand


class NoProvider:
    """Does nothing."""

    releases = False
    repeat_s = 3600.0
    note = ""
    busy = False

    async def apply(self, demand: NodeDemand, reporting: frozenset[str]) -> None:
        """Does nothing."""
