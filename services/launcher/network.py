"""The replicas' network: internal, so that nothing in it reaches beyond it."""

from typing import Any

import structlog

from services.launcher.engine import Engine
from services.launcher.refusal import Kind, RefusedError
from services.launcher.settings import LauncherSettings
from services.launcher.template import LABEL_MESH

log = structlog.get_logger()

_NO_ADDRESS_HERE = {"com.docker.network.bridge.inhibit_ipv4": "true"}
"""An internal network still reaches this machine by the bridge's address, and behind it whatever
listens on all addresses. Without one it reaches nothing, and this machine does not reach it."""


class ReplicaNetwork:
    """Makes sure of the network."""

    def __init__(self, engine: Engine, settings: LauncherSettings) -> None:
        self._engine = engine
        self._settings = settings

    async def ensure(self) -> None:
        """Makes the network if it is not there.

        Raises:
            RefusedError: if a network of that name is not internal, or none can be made.
        """
        name = self._settings.network
        found = await self._engine.network(name)
        if found is None:
            try:
                await self._engine.create_network(self._wanted())
            except RefusedError:
                # Another launcher of this machine may have made it meanwhile.
                if await self._engine.network(name) is None:
                    raise
            else:
                log.info("network.made", name=name)
            found = await self._engine.network(name)
        if found is None:
            raise RefusedError(Kind.UNAVAILABLE, f"the network {name} has gone again: try again")
        check(name, found, self._settings.isolate_network_from_host)

    def _wanted(self) -> dict[str, Any]:
        isolated = self._settings.isolate_network_from_host
        return {
            "Name": self._settings.network,
            "CheckDuplicate": True,
            "Driver": "bridge",
            "Internal": True,
            "Labels": {LABEL_MESH: self._settings.mesh},
            "Options": dict(_NO_ADDRESS_HERE) if isolated else {},
        }


def check(name: str, found: dict[str, Any], isolated: bool = False) -> None:
    """Checks that replicas may be put into a network.

    Args:
        name: of the network.
        found: what the engine says of it.
        isolated: it may have no address of this machine either.

    Raises:
        RefusedError: if they would reach beyond it.
    """
    if found.get("Internal") is not True:
        raise RefusedError(
            Kind.FAILED_PRECONDITION,
            f"the network {name} is not internal, so models in it could reach other machines: "
            f"remove it (`docker network rm {name}`), and the launcher makes it anew; or name "
            "another with the setting network",
        )
    if found.get("Driver") != "bridge":
        raise RefusedError(
            Kind.FAILED_PRECONDITION,
            f"the network {name} has the driver {found.get('Driver')}: replicas need a bridge of "
            "this machine; name another with the setting network",
        )
    options = found.get("Options") or {}
    if isolated and not options.items() >= _NO_ADDRESS_HERE.items():
        raise RefusedError(
            Kind.FAILED_PRECONDITION,
            f"the network {name} has an address of this machine, so models in it could reach what "
            f"listens here: take everything out of it and remove it (`docker network rm {name}`; "
            "with compose `down`, then `up`), and it is made anew; or turn the setting "
            "isolate_network_from_host off",
        )
