"""The term of this autoscaler: one more than that of whoever came before."""

import nats.js.errors
import structlog

from services.wire.kv_mirror import KvMirror

log = structlog.get_logger()

_KEY = "epoch"


class Epoch:
    """Claimed once per process, by compare-and-set.

    Attributes:
        number: the term; 0 until it is claimed.
    """

    def __init__(self, assignments: KvMirror) -> None:
        self._assignments = assignments
        self.number = 0

    async def claim(self) -> None:
        """Claims the next term, unless this process has one.

        Raises:
            nats.errors.Error: if NATS cannot be reached, or someone else claimed the same term.
        """
        if self.number:
            return
        entry = self._assignments.get(_KEY)
        wanted = int(entry.value) + 1 if entry else 1
        try:
            await self._assignments.put(_KEY, str(wanted).encode(), entry.revision if entry else 0)
        except nats.js.errors.KeyWrongLastSequenceError:
            log.info("epoch.taken", epoch=wanted)
            raise
        self.number = wanted
        log.info("epoch.claimed", epoch=wanted)
