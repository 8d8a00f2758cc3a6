"""Whether replicas could be started now, and if not, what to do."""

import asyncio
import os
from pathlib import Path

from services.launcher.engine import Engine
from services.launcher.network import ReplicaNetwork
from services.launcher.refusal import RefusedError

ANSWER_TIMEOUT_S = 5.0


class Readiness:
    """Looks at the engine, the network and the node's folder."""

    def __init__(self, engine: Engine, network: ReplicaNetwork, state_dir: Path) -> None:
        self._engine = engine
        self._network = network
        self._state_dir = state_dir

    async def look(self) -> tuple[str, str]:
        """The engine's version, empty if it does not answer, and why replicas cannot be started.

        The second is empty if they can.
        """
        try:
            version = await self._engine.version(ANSWER_TIMEOUT_S)
        except RefusedError as error:
            return "", error.message
        if not await asyncio.to_thread(os.access, self._state_dir, os.R_OK | os.W_OK | os.X_OK):
            return version, (
                f"the launcher may not write to state_dir {self._state_dir}: give it to this user"
            )
        try:
            await self._network.ensure()
        except RefusedError as error:
            return version, error.message
        return version, ""
