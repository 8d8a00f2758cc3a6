"""`forebay-launcher`: puts the launcher together and runs it until it is told to stop.

It holds the container engine's socket, which is as good as being root, and so listens on nothing
but a Unix socket and dials nothing but the engine.
"""

import asyncio
import json
import os
from pathlib import Path

import grpc.aio
import structlog

from forebay.v1.launcher_pb2_grpc import add_LauncherServiceServicer_to_server
from services.launcher.engine import Engine
from services.launcher.environments import Environments
from services.launcher.images import Images
from services.launcher.launcher_service import LauncherService
from services.launcher.network import ReplicaNetwork
from services.launcher.own_socket import OwnSocket, alone_on
from services.launcher.readiness import Readiness
from services.launcher.replicas import Replicas
from services.launcher.settings import LauncherSettings
from services.launcher.template import KIND_REPLICA, owner_labels
from services.launcher.watching import Watching
from services.runtime import process
from services.runtime.health import Health
from services.runtime.tasks import run_until
from services.wire.channels import SERVER_OPTIONS

log = structlog.get_logger()

SERVICE_NAME = "forebay.v1.LauncherService"
STOP_S = 5.0
LOOK_INTERVAL_S = 5.0


async def serve(settings: LauncherSettings, stopping: asyncio.Event) -> None:
    """Serves until `stopping` is set. Containers run on: the next launcher finds them."""
    state_dir = settings.state_dir.resolve()
    settings = settings.model_copy(update={"state_dir": state_dir})
    state_dir.mkdir(parents=True, exist_ok=True)
    socket = OwnSocket(settings.socket.absolute())
    with alone_on(state_dir / "launcher.lock", f"state_dir {state_dir}"), socket.held():
        async with Engine(settings.engine, settings.engine_timeout_s) as engine:
            await _serve(settings, state_dir, socket, engine, stopping)


async def _serve(
    settings: LauncherSettings,
    state_dir: Path,
    socket: OwnSocket,
    engine: Engine,
    stopping: asyncio.Event,
) -> None:
    images = Images(engine, settings)
    network = ReplicaNetwork(engine, settings)
    watching = Watching(engine, owner_labels(settings, KIND_REPLICA))
    environments = Environments(engine, settings, images, state_dir)
    replicas = Replicas(engine, settings, state_dir, images, network, watching)
    readiness = Readiness(engine, network, state_dir)
    server = grpc.aio.server(options=SERVER_OPTIONS)
    service = LauncherService(settings, engine, readiness, images, environments, replicas)
    add_LauncherServiceServicer_to_server(service, server)
    health = Health(server, [SERVICE_NAME])
    socket.listen(server)
    try:
        await server.start()
        # The process as a whole serves: an engine that does not is not for a restart to mend.
        await health.set_serving(True)
        said = await _tell_use(readiness, health)
        log.info("listening", what="launcher", address=str(socket.path), node=settings.node)
        if settings.ready_file is not None:
            ready = {"pid": os.getpid(), "launcher": f"unix:{socket.path}"}
            process.write_atomically(settings.ready_file, json.dumps(ready))
        await run_until(
            stopping,
            events=watching.run(),
            environments=environments.tidy(),
            use=_keep_telling(readiness, health, said),
        )
    finally:
        await server.stop(STOP_S if stopping.is_set() else 0)


async def _keep_telling(readiness: Readiness, health: Health, before: str) -> None:
    while True:
        await asyncio.sleep(LOOK_INTERVAL_S)
        before = await _tell_use(readiness, health, before)


async def _tell_use(readiness: Readiness, health: Health, before: str = "") -> str:
    """Says in the health service whether replicas can be started, and in the log why not."""
    _, message = await readiness.look()
    await health.set_service(SERVICE_NAME, not message)
    if message and message != before:
        log.warning("not_usable", reason=message)
    elif before and not message:
        log.info("usable")
    return message


def main() -> None:
    """Entry point of `forebay-launcher`."""
    process.run("launcher", LauncherSettings, serve)


if __name__ == "__main__":
    main()
