"""Exits and refusals as sentences that say what to do."""

import pytest

from services.launcher import reasons
from services.launcher.reasons import Exit
from services.launcher.refusal import Kind

GIB = 1024**3


@pytest.mark.parametrize(
    ("ended", "said"),
    [
        (Exit(137, True, 2 * GIB), "it used more memory than its limit of 2 GiB"),
        (Exit(0, True, GIB), "raise resources.memory_bytes in"),
        (Exit(137), "killed from outside (SIGKILL)"),
        (Exit(143), "told to end from outside (SIGTERM)"),
        (Exit(139), "SIGSEGV"),
        (Exit(135), "raise the launcher's setting shm_bytes"),
        (Exit(132), "does not have: use another image"),
        (Exit(134), "SIGABRT"),
        (Exit(125), "look at the engine's log"),
        (Exit(126), "cannot be run"),
        (Exit(127), "no `tritonserver`"),
        (Exit(255), "with the container engine"),
        (Exit(0), "without an error"),
        (Exit(1), "exit code 1: its log says why"),
        (Exit(200), "exit code 200"),
        (Exit(127, error="exec: not found"), "(exec: not found)"),
    ],
)
def test_an_exit_says_what_happened_and_what_to_do(ended: Exit, said: str) -> None:
    assert said in reasons.of_exit(ended)


@pytest.mark.parametrize(
    ("words", "kind", "said"),
    [
        (
            "write /var/lib/docker/tmp/GetImageBlob1: no space left on device",
            Kind.RESOURCE_EXHAUSTED,
            "data-root is full",
        ),
        (
            'could not select device driver "nvidia" with capabilities: [[gpu]]',
            Kind.FAILED_PRECONDITION,
            "NVIDIA Container Toolkit",
        ),
        (
            "CDI device injection failed: unresolvable CDI devices nvidia.com/gpu=GPU-1",
            Kind.FAILED_PRECONDITION,
            "nvidia-ctk cdi generate",
        ),
        (
            "OCI runtime create failed: nvidia-container-cli: device error: GPU-1: unknown device",
            Kind.FAILED_PRECONDITION,
            "fell off the bus",
        ),
        (
            "nvidia-container-cli: initialization error: driver error: failed",
            Kind.FAILED_PRECONDITION,
            "`nvidia-smi`",
        ),
        (
            'Conflict. The container name "/forebay-a-b" is already in use by container "0f"',
            Kind.ALREADY_EXISTS,
            '"/forebay-a-b"',
        ),
        ("Bind for 0.0.0.0:80 failed: port is already allocated", Kind.ALREADY_EXISTS, "taken"),
        (
            "could not find an available, non-overlapping IPv4 address pool among the defaults",
            Kind.RESOURCE_EXHAUSTED,
            "docker network prune",
        ),
        ("network forebay-replicas not found", Kind.FAILED_PRECONDITION, "made anew"),
        ("No such image: sha256:0f", Kind.NOT_FOUND, "pulled anew"),
        ("manifest for x:1 not found: manifest unknown", Kind.NOT_FOUND, "no such image"),
        ("pull access denied for x, repository does not exist", Kind.PERMISSION_DENIED, "login"),
        ("toomanyrequests: You have reached your limit", Kind.UNAVAILABLE, "log in"),
        ("no matching manifest for linux/arm64", Kind.FAILED_PRECONDITION, "processor"),
        (
            "Get https://nvcr.io/v2/: dial tcp: lookup nvcr.io: no such host",
            Kind.UNAVAILABLE,
            "registry cannot be reached",
        ),
        (
            'invalid mount config for type "bind": bind source path does not exist: /a',
            Kind.FAILED_PRECONDITION,
            "same path",
        ),
    ],
)
def test_a_refusal_of_the_engine_says_what_to_do(words: str, kind: Kind, said: str) -> None:
    error = reasons.of_engine("starting iris-0a1b2c3d", 500, words)
    assert error.kind == kind
    assert error.message.startswith("starting iris-0a1b2c3d: ")
    assert said in error.message


def test_an_unknown_refusal_is_passed_on_cut_short() -> None:
    assert reasons.of_engine("x", 500, "boom").kind == Kind.INTERNAL
    assert reasons.of_engine("x", 404, "gone").kind == Kind.NOT_FOUND
    error = reasons.of_engine("x", 400, "a b\n" * 1000)
    assert error.kind == Kind.FAILED_PRECONDITION
    assert len(error.message) < 500
    assert "\n" not in error.message


def test_a_socket_that_may_not_be_used_is_told_from_an_engine_that_is_down() -> None:
    denied = reasons.of_absence("x", "unix:///s", "Cannot connect: [Permission denied]")
    assert "the group that owns it" in denied.message
    down = reasons.of_absence("x", "unix:///s", "No such file or directory")
    assert "systemctl start docker" in down.message
    assert {denied.kind, down.kind} == {Kind.UNAVAILABLE}


def test_silence_says_how_long_it_was() -> None:
    error = reasons.of_silence("listing containers", "unix:///s", 30)
    assert error.kind == Kind.UNAVAILABLE
    assert "within 30 s" in error.message


def test_a_build_that_fails_says_pips_last_errors() -> None:
    log = ["Collecting nope", "", *[f"ERROR: {n}" for n in range(7)], "note: this"]
    error = reasons.of_build(1, False, GIB, log)
    assert error.kind == Kind.FAILED_PRECONDITION
    assert "ERROR: 2\nERROR: 3\nERROR: 4\nERROR: 5\nERROR: 6" in error.message
    assert "ERROR: 1\n" not in error.message
    assert "exits with 1" in reasons.of_build(1, False, GIB, []).message


def test_a_build_without_memory_or_disk_says_so() -> None:
    assert "more memory than 1 GiB" in reasons.of_build(137, True, GIB, []).message
    full = reasons.of_build(1, False, GIB, ["ERROR: [Errno 28] No space left on device"])
    assert full.kind == Kind.RESOURCE_EXHAUSTED


@pytest.mark.parametrize(
    ("count", "said"),
    [(2 * GIB, "2 GiB"), (1536 * 1024**2, "1.5 GiB"), (10 * 1024**2, "10 MiB"), (7, "7 bytes")],
)
def test_sizes_are_said_as_people_say_them(count: int, said: str) -> None:
    assert reasons.size(count) == said
