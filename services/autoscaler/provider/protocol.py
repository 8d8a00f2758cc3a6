"""What a node provider is."""

from typing import Protocol

from forebay.v1.autoscaler_pb2 import NodeDemand


class ProviderError(Exception):
    """The provider could not act; the text says why and what to do."""


class NodeProvider(Protocol):
    """Acts on what machines are missing and which may go.

    Attributes:
        releases: whether it can release nodes.
        repeat_s: how often it wants to hear of what has not changed, while anything is missing or
            may go, in seconds.
        note: what people should know of it, such as that nothing it can add would help; empty if
            there is nothing.
    """

    releases: bool
    repeat_s: float
    note: str

    @property
    def busy(self) -> bool:
        """Whether it is in the middle of something and wants to hear even of nothing."""
        ...

    async def apply(self, demand: NodeDemand, reporting: frozenset[str]) -> None:
        """Acts. Called by one task, one call after the other.

        Args:
            demand: what is missing and what may go.
            reporting: ids of the nodes that report.

        Raises:
            ProviderError: if it could not.
        """
        ...
