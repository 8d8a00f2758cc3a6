"""Pure: the second form of a container: it installs a requirements.txt and ends.

Installing runs code of whoever wrote a package, so it is confined as a replica is. Two things
differ: it has a network, since packages come from somewhere, and a folder to write to, its own.
Nothing of a deployment is in it but the requirements: no model, no volume, no GPU, no key.
"""

import hashlib
from typing import Any

from services.launcher.settings import LauncherSettings
from services.launcher.template import (
    KIND_ENVIRONMENT,
    LABEL_ENVIRONMENT,
    TMP,
    bind,
    confinement,
    identity,
    owner_labels,
)

BUILD = "/forebay/build"
PACKAGES = "packages"
REQUIREMENTS = "requirements.txt"
SCRATCH = "scratch"


def environment_id(image_id: str, requirements: bytes) -> str:
    """Names an environment by what decides its content: the requirements and the image."""
    return hashlib.sha256(requirements + b"\0" + image_id.encode()).hexdigest()[:32]


def build_name(settings: LauncherSettings, environment: str) -> str:
    """Name of the container that builds an environment."""
    return f"{settings.mesh}-{settings.node}-environment-{environment[:16]}"


def environment_container(
    image_id: str, environment: str, folder: str, settings: LauncherSettings
) -> dict[str, Any]:
    """The configuration of a container that builds an environment.

    Args:
        image_id: the image whose Python installs and will run it.
        environment: id of the environment.
        folder: of the machine; has `requirements.txt` and `scratch/`, gets `packages/`.
        settings: the launcher's.
    """
    # PIP_NO_CACHE_DIR and the like may come from the image; these do not depend on it.
    variables = {
        **settings.environment_variables,
        "HOME": TMP,
        "NVIDIA_VISIBLE_DEVICES": "void",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_NO_INPUT": "1",
        "PYTHONUNBUFFERED": "1",
        # On disk: a wheel of torch takes more than a replica's /tmp has.
        "TMPDIR": f"{BUILD}/{SCRATCH}",
    }
    return {
        "Image": image_id,
        # Not the image's own entry point, which is made for Triton.
        "Entrypoint": ["python3"],
        "Cmd": [
            "-m", "pip", "install", "--no-cache-dir", "--progress-bar=off",
            f"--target={BUILD}/{PACKAGES}", f"--requirement={BUILD}/{REQUIREMENTS}",
        ],
        "Env": [f"{name}={value}" for name, value in sorted(variables.items())],
        "Labels": {**owner_labels(settings, KIND_ENVIRONMENT), LABEL_ENVIRONMENT: environment},
        **identity(settings, "environment"),
        "HostConfig": {
            **confinement(settings, settings.default_memory_bytes),
            "NetworkMode": settings.environment_network,
            "Mounts": [bind(folder, BUILD, read_only=False)],
        },
    }  # fmt: skip
