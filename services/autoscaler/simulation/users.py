"""Users who send, wait for the answer and send again. Pure."""

from services.autoscaler.simulation.deployed import Deployed
from services.autoscaler.simulation.mesh import REFUSED_AGAIN_S, Mesh


class ClosedLoop:
    """So many users of one deployment, each with one request at a time.

    Attributes:
        wanted: how many there should be.
        active: how many there are; one who is too many leaves when answered.
    """

    def __init__(self, think_s: float = 0.0) -> None:
        """Nobody yet.

        Args:
            think_s: time from an answer to the next request.
        """
        self.wanted = self.active = 0
        self._think_s = think_s

    def become(self, mesh: Mesh, deployed: Deployed, count: int) -> None:
        """From now on there are so many."""
        self.wanted = count
        while self.active < count:
            self.active += 1
            mesh.agenda.after(0.0, mesh.arrive, deployed)

    def ended(self, mesh: Mesh, deployed: Deployed, refused: bool) -> None:
        """A request has ended: its user sends the next one, or leaves."""
        if self.active > self.wanted:
            self.active -= 1
        else:
            delay_s = max(self._think_s, REFUSED_AGAIN_S if refused else 0.0)
            mesh.agenda.after(delay_s, mesh.arrive, deployed)
