"""Where a replica's files are. The agent writes them; the launcher only looks that they are there.

An agent that somebody else has taken over could put a link in their place, and the engine, which is
root, would follow it. So each folder must be itself, without a link on the way.
"""

import os
from pathlib import Path

from services.launcher.refusal import Kind, RefusedError
from services.launcher.request_check import CheckedReplica
from services.launcher.template import Folders


def folders_of(state_dir: Path, replica: CheckedReplica) -> Folders:
    """The folders of a replica. Blocks shortly.

    Args:
        state_dir: the node's, resolved.
        replica: what is to be started.

    Raises:
        RefusedError: if one is not there, or is a link.
    """
    environment = state_dir / "environments" / replica.environment_id
    return Folders(
        repository=own_folder(state_dir / "replicas" / replica.replica_id / "repository"),
        model=own_folder(state_dir / "models" / replica.model),
        environment=own_folder(environment) if replica.environment_id else None,
    )


def own_folder(path: Path) -> str:
    """Returns a folder's path if it is a folder and no link is on the way to it.

    Raises:
        RefusedError: if it is not.
    """
    if not path.is_dir():
        raise RefusedError(
            Kind.FAILED_PRECONDITION,
            f"there is no folder {path}: the agent makes it; agent and launcher need the same "
            "state_dir, under the same path",
        )
    if os.path.realpath(path) != str(path):
        raise RefusedError(
            Kind.PERMISSION_DENIED,
            f"{path} is a link, or a folder on the way to it is: replicas see folders of state_dir "
            "only",
        )
    return str(path)
