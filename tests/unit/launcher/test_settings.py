"""What an operator may say, and what is refused with the key and what is legal."""

import pytest

from services.launcher.settings import LauncherSettings
from services.runtime.config import ConfigError


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DOCKER_HOST", raising=False)


@pytest.mark.parametrize(
    ("flag", "value", "said"),
    [
        ("network", "host", "never Docker's 'host'"),
        ("network", "bridge", "never Docker's 'bridge'"),
        ("network", "a/b", "1 to 63"),
        ("engine", "tcp://127.0.0.1:2375", "write a Unix socket"),
        ("default-image", "a b", "names no image"),
        ("default-image", "triton:*", "names no one image"),
        ("allowed-images", '["a b"]', "names no image"),
        ("volumes", '{"data": "relative"}', "absolute path"),
        ("mps-pipe-dir", "relative", "not an absolute path"),
        ("user-id", "0", "greater than or equal to 1"),
        ("mesh", "Mesh", "mesh"),
        ("node", "../x", "node"),
        ("trace-url", "http://x/;opentelemetry,url=y", "trace_url"),
        ("gpu-devices", "all", "'auto', 'nvidia' or 'cdi'"),
    ],
)
def test_what_is_not_legal_is_refused_by_name(flag: str, value: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        LauncherSettings.load([f"--{flag}", value])
    assert flag.replace("-", "_") in str(caught.value)
    assert said in str(caught.value)


def test_the_engine_is_dockers_unless_somebody_says_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert LauncherSettings.load([]).engine == "unix:///var/run/docker.sock"
    monkeypatch.setenv("DOCKER_HOST", "unix:///run/user/1000/docker.sock")
    assert LauncherSettings.load([]).engine == "unix:///run/user/1000/docker.sock"


def test_it_knows_nothing_of_nats() -> None:
    assert not [name for name in LauncherSettings.model_fields if "nats" in name]
