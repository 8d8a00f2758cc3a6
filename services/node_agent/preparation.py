"""What a Triton needs before it is started: its model, a Python environment, a repository."""

import asyncio
from collections.abc import Callable
from pathlib import Path

from forebay.v1.autoscaler_pb2 import Assignment
from services.node_agent import replica_environment
from services.node_agent.model_cache import ModelCache, build_repository
from services.node_agent.python_environment import PythonEnvironments
from services.node_agent.triton_process import remove_shared_memory
from services.wire import names


async def prepare(
    assignment: Assignment,
    directory: Path,
    models: ModelCache,
    environments: PythonEnvironments,
    say: Callable[[str], None],
) -> Path:
    """Makes a replica's directory ready for its Triton.

    Args:
        assignment: of the replica.
        directory: of the replica; its repository is made anew.
        models: where its model comes from.
        environments: where its Python environment comes from.
        say: told what takes time.

    Returns:
        The Python environment the model runs in.

    Raises:
        ModelError: if the model cannot be had.
        RequirementsError: if its environment cannot be built.
        OSError: if the repository cannot be written.
    """
    say("fetching the model")
    model = await models.fetch(assignment.model_digest)
    environment = await environments.of(model, say)
    await asyncio.to_thread(
        build_repository,
        model,
        directory / "repository",
        names.deployment_id(assignment.deployment),
        assignment.resources.workers,
        replica_environment.runs_on_simulated_gpus(assignment),
    )
    await asyncio.to_thread(remove_shared_memory, assignment.replica_id)
    return environment
