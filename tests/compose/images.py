"""The images that tests with containers run, built from the repository and from packages.

    python -m tests.compose.images

The base is python:3.11-slim-bookworm where the daemon has it or can pull it; else a Debian that
debootstrap makes, which takes root and about a minute. What is built is tagged
`forebay-test/…`, and kept: the next run builds it from the daemon's cache.
"""

import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.compose.engine import BUILD_TIMEOUT_S, ROOT, docker, has_image

OFFICIAL = "python:3.11-slim-bookworm"
STAND_IN = "forebay-test/python:bookworm"
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
PULL_TIMEOUT_S = 120.0

_HERE = Path(__file__).parent / "images"


@dataclass(frozen=True, slots=True)
class Images:
    """What was built.

    Attributes:
        forebay: the services.
        triton: Triton for CPUs.
        nats: nats-server.
        prometheus: Prometheus.
    """

    forebay: str
    triton: str
    nats: str
    prometheus: str


def build() -> Images:
    """Builds all of them."""
    base = _base()
    return Images(
        forebay=_built("forebay", ROOT / "deploy" / "Dockerfile", ROOT, base),
        triton=_built("triton-cpu", ROOT / "deploy" / "triton-cpu" / "Dockerfile", ROOT, base),
        nats=_built("nats", _HERE / "nats" / "Dockerfile", _HERE / "nats", base),
        prometheus=_built(
            "prometheus", _HERE / "prometheus" / "Dockerfile", _HERE / "prometheus", base
        ),
    )


def _built(name: str, dockerfile: Path, context: Path, base: str) -> str:
    tag = f"forebay-test/{name}:local"
    arguments = ("--build-arg", f"PYTHON_IMAGE={base}", "--tag", tag, "--file", dockerfile)
    docker("build", "--quiet", *arguments, context, timeout_s=BUILD_TIMEOUT_S)
    return tag


def _base() -> str:
    if has_image(STAND_IN):
        return STAND_IN
    if has_image(OFFICIAL) or _pulled(OFFICIAL):
        return OFFICIAL
    assert shutil.which("debootstrap"), (
        f"{OFFICIAL} cannot be pulled, and there is no debootstrap to make a stand-in: install it"
    )
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch) / "root"
        _run(
            "debootstrap", "--variant=minbase",
            "--include=ca-certificates,python3,python3-venv,python3-pip,libpython3.11",
            "bookworm", str(root),
        )  # fmt: skip
        archive = Path(scratch) / "root.tar"
        _run("tar", "-C", str(root), "-cf", str(archive), ".")
        bare = docker("import", archive, timeout_s=BUILD_TIMEOUT_S)
        context = Path(scratch) / "base"
        shutil.copytree(_HERE / "base", context)
        shutil.copyfile(CERTIFICATES, context / CERTIFICATES.name)
        docker("build", "--quiet", "--build-arg", f"ROOT_IMAGE={bare}", "--tag", STAND_IN, context)
    return STAND_IN


def _pulled(image: str) -> bool:
    try:
        done = subprocess.run(
            ["docker", "pull", "--quiet", image], capture_output=True, timeout=PULL_TIMEOUT_S
        )
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


def _run(*words: str) -> None:
    done = subprocess.run(words, capture_output=True, text=True, timeout=BUILD_TIMEOUT_S)
    assert done.returncode == 0, f"{words[0]} failed: {(done.stdout + done.stderr)[-2000:]}"


if __name__ == "__main__":
    print(build())
