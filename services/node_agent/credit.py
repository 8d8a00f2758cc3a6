"""Pure: how many requests to ask the queue for, and what is still on its way.

Pulling by free slots is the load balancer: ongoing requests and those asked for never exceed the
slots. Asking anew for each free slot would double the messages at load, so it waits until a quarter
of the slots is free, or nothing is on its way.
"""

EXPIRES_S = 3.0
"""How long the server keeps a pull open. Short, because a pull that a restart of nats-server
swallowed never comes back."""

GRACE_S = 1.0


class Credit:
    """Open pulls of one replica."""

    def __init__(self, slots: int) -> None:
        """No open pulls.

        Args:
            slots: requests the replica works on at once.
        """
        self._slots = slots
        self._threshold = max(1, slots // 4)
        self._open: dict[str, tuple[int, float]] = {}
        self._on_the_way = 0
        self._next = 0

    @property
    def on_the_way(self) -> int:
        """Requests asked for and not yet delivered."""
        return self._on_the_way

    def wanted(self, ongoing: int) -> int:
        """How many requests to ask for now.

        Args:
            ongoing: requests the replica is working on.
        """
        free = self._slots - ongoing - self._on_the_way
        return free if free >= self._threshold or (free > 0 and not self._on_the_way) else 0

    def open(self, count: int, now_s: float, expires_s: float = EXPIRES_S) -> str:
        """Notes a pull of `count` requests that stays open for so long; returns its name."""
        self._next += 1
        name = str(self._next)
        self._open[name] = (count, now_s + expires_s + GRACE_S)
        self._on_the_way += count
        return name

    def delivered(self) -> None:
        """One request has come. It is put down to the oldest open pull: deliveries do not say."""
        for name, (count, until_s) in self._open.items():
            self._on_the_way -= 1
            if count == 1:
                del self._open[name]
            else:
                self._open[name] = (count - 1, until_s)
            return

    def closed(self, name: str, undelivered: int) -> None:
        """The server has ended a pull.

        Args:
            name: of the pull.
            undelivered: requests of it that will not come.
        """
        count, _ = self._open.pop(name, (0, 0.0))
        if not self._open:
            self._on_the_way = 0
            return
        # The sum stays exact: what was put down wrongly is moved to or from the oldest others.
        self._on_the_way -= undelivered
        surplus = count - undelivered
        for other, (left, until_s) in list(self._open.items()):
            if surplus >= 0:
                self._open[other] = (left + surplus, until_s)
                return
            taken = min(left, -surplus)
            surplus += taken
            if taken == left:
                del self._open[other]
            else:
                self._open[other] = (left - taken, until_s)
        # A pull of which nothing was left to expect had ended; no more can be outstanding.
        self._on_the_way = sum(left for left, _ in self._open.values())

    def expire(self, now_s: float) -> None:
        """Forgets pulls that the server must have ended."""
        for name in [name for name, (_, until_s) in self._open.items() if until_s <= now_s]:
            self._on_the_way -= self._open.pop(name)[0]

    def lost(self) -> None:
        """Forgets all pulls: the connection was lost."""
        self._open.clear()
        self._on_the_way = 0
