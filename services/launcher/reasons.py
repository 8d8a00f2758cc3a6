"""Pure: why a container ended, or why the engine refused something, as a person understands it.

Each sentence says what happened, what it most likely means, and what to do. The engine's own words
follow where they add something; they are cut to MAX_WORDS characters.
"""

import re
import signal
from dataclasses import dataclass

from services.launcher.refusal import Kind, RefusedError

MAX_WORDS = 400
STOPPED = "it was stopped, as the agent asked"

_EXEC_FAILED = 126
_NOT_FOUND = 127
_ENGINE_FAILED = 125
_SIGNALLED = 128
_KILLED = _SIGNALLED + signal.SIGKILL
_TERMINATED = _SIGNALLED + signal.SIGTERM
_SHUTDOWN = 255

_SIGNALS = {
    signal.SIGSEGV: "a library of the model or of Triton read memory that is not its own",
    signal.SIGABRT: "it gave up on an error that it says in its log",
    signal.SIGBUS: "it ran out of shared memory: raise the launcher's setting shm_bytes",
    signal.SIGILL: "it uses instructions that this CPU does not have: use another image",
    signal.SIGFPE: "it divided by zero or the like",
    signal.SIGSYS: "it made a system call that containers may not make",
    signal.SIGHUP: "it was told to from outside",
    signal.SIGINT: "it was told to from outside",
}


@dataclass(frozen=True, slots=True)
class Exit:
    """How a container ended.

    Attributes:
        code: what its first process exited with; 128 and the signal's number if one ended it.
        out_of_memory: the kernel killed a process of it for want of memory.
        memory_limit_bytes: its limit; 0 for none.
        error: what the engine says about it; mostly empty.
    """

    code: int
    out_of_memory: bool = False
    memory_limit_bytes: int = 0
    error: str = ""


def of_exit(ended: Exit) -> str:
    """Why a replica's container ended, and what to do."""
    limit = size(ended.memory_limit_bytes)
    if ended.out_of_memory:
        return (
            f"it used more memory than its limit of {limit} and was killed by the kernel: raise "
            "resources.memory_bytes in the deployment's file (or the launcher's setting "
            "default_memory_bytes if it declares none), or load less"
        )
    words = f" ({_short(ended.error)})" if ended.error else ""
    match ended.code:
        case 0:
            return "Triton ended by itself, without an error: its log says why"
        case code if code == _KILLED:
            return (
                "it was killed from outside (SIGKILL): by hand, by the engine, or by the kernel "
                "because the machine, not the container, ran out of memory; `dmesg` says which"
                + words
            )
        case code if code == _TERMINATED:
            return (
                "it was told to end from outside (SIGTERM), such as by `docker stop`; the launcher "
                "did not" + words
            )
        case code if code == _ENGINE_FAILED:
            return "the container engine could not run it: look at the engine's log" + words
        case code if code == _EXEC_FAILED:
            return (
                "its image has a `tritonserver` that cannot be run: it is no program of this kind "
                "of machine, or may not be executed; use another image" + words
            )
        case code if code == _NOT_FOUND:
            return (
                "its image has no `tritonserver`, or lacks a library that it needs: use an image "
                "of Triton" + words
            )
        case code if code == _SHUTDOWN:
            return (
                "it ended with the container engine, or with an error that says nothing (exit code "
                "255): its log and the engine's say more" + words
            )
        case code if _SIGNALLED < code <= _SIGNALLED + signal.SIGRTMAX:
            return _of_signal(code - _SIGNALLED) + words
        case code:
            return f"Triton ended with exit code {code}: its log says why{words}"


def of_memory_kill(memory_limit_bytes: int) -> str:
    """What to say of a container that runs on after the kernel killed a process in it."""
    return (
        "a process in it used more memory than its limit of "
        f"{size(memory_limit_bytes)} allows and was killed by the kernel: raise "
        "resources.memory_bytes in the deployment's file"
    )


def size(count_bytes: int) -> str:
    """A number of bytes as people say it, such as `2 GiB`."""
    if not count_bytes:
        return "the machine's memory"
    for unit, name in ((1024**3, "GiB"), (1024**2, "MiB"), (1024, "KiB")):
        if count_bytes >= unit:
            return f"{count_bytes / unit:.3g} {name}"
    return f"{count_bytes} bytes"


# The first that is found in the engine's words. What it says of is `{what}`.
_RULES: tuple[tuple[str, Kind, str], ...] = (
    (
        r"no space left on device|disk quota exceeded",
        Kind.RESOURCE_EXHAUSTED,
        "the disk of the container engine's data-root is full (`docker info` says where it is; "
        "`docker system df` shows what fills it): make room, such as by `docker image prune -a`",
    ),
    (
        r"could not select device driver|unknown or invalid runtime name.*nvidia"
        r"|nvidia-container-runtime-hook.*not found",
        Kind.FAILED_PRECONDITION,
        "the container engine cannot give GPUs to containers: install the NVIDIA Container Toolkit "
        "and run `nvidia-ctk runtime configure --runtime=docker`, then restart the engine",
    ),
    (
        r"CDI device injection failed|unresolvable CDI devices|CDI.*not (?:enabled|supported)",
        Kind.FAILED_PRECONDITION,
        "the container engine does not know a GPU by that name: run `nvidia-ctk cdi generate "
        "--output=/etc/cdi/nvidia.yaml --device-name-strategy=uuid`, or set gpu_devices: nvidia",
    ),
    (
        r"nvidia-container-cli.*(?:unknown device|device error)|unknown device.*GPU-",
        Kind.FAILED_PRECONDITION,
        "the driver does not know a GPU of this replica any more: `nvidia-smi -L` lists those that "
        "are there; one that fell off the bus comes back with a restart of the machine",
    ),
    (
        r"nvidia-container-cli|libnvidia-ml",
        Kind.FAILED_PRECONDITION,
        "the NVIDIA driver does not answer the container engine: `nvidia-smi` on this machine says "
        "why",
    ),
    (
        r"container name .* is already in use",
        Kind.ALREADY_EXISTS,
        "a container that is not this launcher's has the name of this replica's: remove it, or "
        "give this mesh or node another name (settings mesh and node)",
    ),
    (
        r"port is already allocated|address already in use",
        Kind.ALREADY_EXISTS,
        "an address in the replicas' network is taken: look at `docker network inspect` and "
        "remove what does not belong there",
    ),
    (
        r"could not find an available.*(?:IPv4 )?address pool|no available.*addresses",
        Kind.RESOURCE_EXHAUSTED,
        "the container engine has no free addresses left for networks: remove unused ones with "
        "`docker network prune`, or give it more with default-address-pools",
    ),
    (
        r"network \S+ not found|could not find network",
        Kind.FAILED_PRECONDITION,
        "the replicas' network has gone: it is made anew with the next start",
    ),
    (
        r"no such image|image not known",
        Kind.NOT_FOUND,
        "the image is not on this machine any more: it is pulled anew when it is prepared",
    ),
    (
        r"manifest unknown|manifest for .* not found|name unknown|repository .* not found",
        Kind.NOT_FOUND,
        "the registry has no such image: look at its name, tag and digest",
    ),
    (
        r"pull access denied|unauthorized|authentication required|denied: requested access",
        Kind.PERMISSION_DENIED,
        "the registry refuses it: the image does not exist, or needs a login (pull it once with "
        "`docker login` and `docker pull` on this machine)",
    ),
    (
        r"toomanyrequests|too many requests",
        Kind.UNAVAILABLE,
        "the registry allows no more pulls for now: log in, or try again later",
    ),
    (
        r"no matching manifest for",
        Kind.FAILED_PRECONDITION,
        "the image is not made for this kind of machine: use one for its processor",
    ),
    (
        r"no such host|dial tcp|i/o timeout|connection refused|connection reset|TLS handshake|x509"
        r"|EOF|client\.timeout|network is unreachable|server misbehaving|received unexpected HTTP",
        Kind.UNAVAILABLE,
        "the registry cannot be reached from the container engine: look at the network, its name "
        "servers, proxy and certificates, or pull the image by hand",
    ),
    (
        r"bind source path does not exist|invalid mount config",
        Kind.FAILED_PRECONDITION,
        "a folder that the replica needs is not on the engine's machine: state_dir and volumes "
        "must have the same path here, in the agent and there",
    ),
    (
        r"pids cgroup|cgroup.*(?:not supported|no such file)|OCI runtime create failed",
        Kind.FAILED_PRECONDITION,
        "the container engine could not set the container up",
    ),
)


def of_engine(doing: str, status: int, words: str) -> RefusedError:
    """What the engine's refusal means.

    Args:
        doing: what was tried, such as `starting iris-0a1b2c3d`.
        status: HTTP status; 0 for one within a stream, 900 if there was no answer.
        words: the engine's own.
    """
    for pattern, kind, sentence in _RULES:
        if re.search(pattern, words, re.IGNORECASE | re.DOTALL):
            return RefusedError(kind, f"{doing}: {sentence}. The engine says: {_short(words)}")
    said = f"the container engine refuses with status {status}: {_short(words)}"
    if status >= 500:
        return RefusedError(
            Kind.INTERNAL, f"{doing}: {said}. Its own log (`journalctl -u docker`) says more"
        )
    if status == 404:
        return RefusedError(Kind.NOT_FOUND, f"{doing}: {said}")
    return RefusedError(Kind.FAILED_PRECONDITION, f"{doing}: {said}")


def of_silence(doing: str, engine: str, timeout_s: float) -> RefusedError:
    """The engine did not answer in time."""
    return RefusedError(
        Kind.UNAVAILABLE,
        f"{doing}: the container engine at {engine} did not answer within {timeout_s:g} s: it is "
        "overloaded or hangs; look at `journalctl -u docker` and restart it if that stays so",
    )


def of_absence(doing: str, engine: str, words: str) -> RefusedError:
    """The engine could not be reached."""
    if re.search(r"permission denied", words, re.IGNORECASE):
        what = (
            "this user may not use its socket: add the launcher to the group that owns it (mostly "
            "`docker`)"
        )
    else:
        what = "start it (`systemctl start docker`), or name its socket with the setting engine"
    return RefusedError(
        Kind.UNAVAILABLE,
        f"{doing}: the container engine at {engine} does not answer: {what}. {_short(words)}",
    )


def of_build(
    exit_code: int, out_of_memory: bool, memory_bytes: int, log: list[str]
) -> RefusedError:
    """Why the environment of a model could not be built: pip's last lines.

    Args:
        exit_code: of the container.
        out_of_memory: the kernel killed it for want of memory.
        memory_bytes: its limit.
        log: what it wrote, by line.
    """
    if out_of_memory:
        return RefusedError(
            Kind.RESOURCE_EXHAUSTED,
            "the model's requirements.txt cannot be installed: pip used more memory than "
            f"{size(memory_bytes)}: raise the launcher's setting default_memory_bytes",
        )
    lines = [line for line in log if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR")] or lines
    said = "\n".join(errors[-5:])[-2000:] or f"it says nothing and exits with {exit_code}"
    kind = Kind.FAILED_PRECONDITION
    if re.search(r"no space left on device", said, re.IGNORECASE):
        kind = Kind.RESOURCE_EXHAUSTED
    return RefusedError(kind, f"the model's requirements.txt cannot be installed: {said}")


def _of_signal(number: int) -> str:
    try:
        name = signal.Signals(number).name
    except ValueError:
        return f"signal {number} ended it"
    why = _SIGNALS.get(signal.Signals(number))
    return f"it was ended by {name}: {why}" if why else f"it was ended by {name}"


def _short(words: str) -> str:
    line = " ".join(words.split())
    return line if len(line) <= MAX_WORDS else f"{line[: MAX_WORDS - 1]}…"
