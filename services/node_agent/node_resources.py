"""What replicas of this node may declare besides GPUs: CPUs and memory, unless a setting says."""

import os
from pathlib import Path

import psutil

from forebay.v1.node_pb2 import REPLICA_RUNTIME_DOCKER, ReplicaRuntime

_CGROUPS = Path("/sys/fs/cgroup")
_OWN_CGROUP = Path("/proc/self/cgroup")


def offered(runtime: ReplicaRuntime) -> tuple[float, int]:
    """CPUs and memory in bytes of this node's replicas.

    Children of this process share what it may use. Containers beside it do not: their share is the
    machine's, however little this process was given in a container of its own.
    """
    if runtime == REPLICA_RUNTIME_DOCKER:
        return float(os.cpu_count() or 1), int(psutil.virtual_memory().total)
    return cpus(), memory_bytes()


def cpus(cgroups: Path = _CGROUPS, own: Path = _OWN_CGROUP) -> float:
    """CPUs this process may use: those it may run on, or its cgroup's quota if that is less."""
    allowed = float(len(os.sched_getaffinity(0)))
    for quota in _limits("cpu.max", cgroups, own):
        granted_us, _, period_us = quota.partition(" ")
        if granted_us.isdecimal() and period_us.isdecimal() and int(period_us):
            allowed = min(allowed, int(granted_us) / int(period_us))
    return round(allowed, 2)


def memory_bytes(cgroups: Path = _CGROUPS, own: Path = _OWN_CGROUP) -> int:
    """Memory this process may use: the machine's, or its cgroup's limit if that is less."""
    allowed = int(psutil.virtual_memory().total)
    for limit in _limits("memory.max", cgroups, own):
        if limit.isdecimal():
            allowed = min(allowed, int(limit))
    return allowed


def _limits(file: str, cgroups: Path, own: Path) -> list[str]:
    """What a file of this process' cgroup and of each one above it says (cgroup version 2)."""
    try:
        # Version 2 is the line `0::/path`; in a container the path is /, which is the limited one.
        lines = own.read_text().splitlines()
    except OSError:
        return []
    path = next((line[3:] for line in lines if line.startswith("0::")), None)
    if path is None:
        return []
    here = cgroups / path.lstrip("/")
    found = []
    for directory in (here, *here.parents):
        if not directory.is_relative_to(cgroups):
            break
        try:
            found.append((directory / file).read_text().strip())
        except OSError:
            continue
    return found
