"""What the compose files promise, read as Compose reads them. No daemon is needed."""

import json
import re
import subprocess
from functools import cache
from typing import Any

import pytest

from scripts.configuration import settings_class
from services.runtime import model_messages
from tests.contract.tree import ROOT
from tests.support.compose_file import Compose, needs_compose

COMBINATIONS = (
    ("compose.yaml",),
    ("compose.yaml", "compose.gpu.yaml"),
    ("compose.yaml", "compose.fleet.yaml"),
    ("compose.node.yaml",),
    ("compose.node.yaml", "compose.gpu.yaml"),
)
ONE_SHOT = {"init", "triton", "cli"}
"""Services that do their work and end: nobody asks after their health."""

SERVICES = {"router", "autoscaler", "metrics", "node-agent", "launcher"}
ENGINE = "/var/run/docker.sock"

pytestmark = needs_compose


@cache
def read(*files: str) -> dict[str, Any]:
    return Compose(*files).config()


every_combination = pytest.mark.parametrize("files", COMBINATIONS, ids="+".join)


def kind(service: str) -> str:
    """`router-2` is a router."""
    return re.sub(r"-\d+$", "", service)


@every_combination
def test_compose_accepts_each_combination(files: tuple[str, ...]) -> None:
    config = read(*files)
    assert {kind(name) for name in config["services"]} >= {"init", "launcher", "node-agent"}


@every_combination
def test_nothing_has_more_rights_than_it_needs(files: tuple[str, ...]) -> None:
    for name, service in read(*files)["services"].items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert not service.get("privileged"), name
        if name == "init":
            assert service["cap_add"] == ["CHOWN", "DAC_OVERRIDE", "FOWNER"]
            assert service["network_mode"] == "none"
            continue
        assert "cap_add" not in service, name
        user, _, group = service["user"].partition(":")
        assert int(user) > 0, name
        assert int(group) > 0, name


@every_combination
def test_what_runs_as_another_user_cannot_be_touched(files: tuple[str, ...]) -> None:
    """With GPUs an agent sees every process of the machine."""
    users: dict[str, set[str]] = {}
    for name, service in read(*files)["services"].items():
        users.setdefault(kind(name), set()).add(service["user"].partition(":")[0])
    for alone in ("node-agent", "launcher", "nats"):
        if alone in users:
            others = [found for name, found in users.items() if name not in (alone, "triton")]
            assert all(users[alone].isdisjoint(found) for found in others), alone


@every_combination
def test_nothing_can_take_all_of_the_machine(files: tuple[str, ...]) -> None:
    for name, service in read(*files)["services"].items():
        limits = service["deploy"]["resources"]["limits"]
        assert int(limits["memory"]) <= 2 << 30, name
        assert float(limits["cpus"]) <= 2, name
        assert limits["pids"] <= 512, name
        assert service["logging"]["driver"] == "json-file", name
        assert set(service["logging"]["options"]) == {"max-size", "max-file"}, name
        assert all("size=" in tmpfs for tmpfs in service["tmpfs"]), name


@every_combination
def test_what_runs_on_is_asked_after_and_started_again(files: tuple[str, ...]) -> None:
    for name, service in read(*files)["services"].items():
        if name in ONE_SHOT:
            assert service["restart"] == "no", name
        else:
            assert service["restart"] == "unless-stopped", name
            assert service["healthcheck"]["test"][0] == "CMD", name


@every_combination
def test_what_ends_is_waited_for_by_what_runs_on(files: tuple[str, ...]) -> None:
    """Otherwise `up --wait` calls its end a failure."""
    services = read(*files)["services"]
    waited_for = {
        dependency
        for name, service in services.items()
        if name not in ONE_SHOT
        for dependency, how in service.get("depends_on", {}).items()
        if how["condition"] == "service_completed_successfully"
    }
    assert {name for name in services if name in ONE_SHOT and name != "cli"} <= waited_for


@every_combination
def test_ports_are_published_on_loopback_and_each_once(files: tuple[str, ...]) -> None:
    ports = [
        port for service in read(*files)["services"].values() for port in service.get("ports", [])
    ]
    assert {port["host_ip"] for port in ports} <= {"127.0.0.1"}
    published = [port["published"] for port in ports]
    assert len(set(published)) == len(published)


@every_combination
def test_the_launcher_alone_has_the_engines_socket_and_has_no_network(
    files: tuple[str, ...],
) -> None:
    for name, service in read(*files)["services"].items():
        mounts = [volume["target"] for volume in service.get("volumes", [])]
        assert (ENGINE in mounts) == (kind(name) == "launcher"), name
        assert all("docker.sock" not in mount for mount in mounts if mount != ENGINE), name
        if kind(name) == "launcher":
            assert service["network_mode"] == "none"
            assert "ports" not in service


@every_combination
def test_only_agents_are_in_the_replicas_network_which_has_no_way_out(
    files: tuple[str, ...],
) -> None:
    config = read(*files)
    assert config["networks"]["replicas"]["internal"] is True
    # Nor a way to what listens on this machine, behind the bridge's own address.
    options = config["networks"]["replicas"]["driver_opts"]
    assert options == {"com.docker.network.bridge.inhibit_ipv4": "true"}
    inside = {n for n, s in config["services"].items() if "replicas" in (s.get("networks") or {})}
    assert {kind(name) for name in inside} == {"node-agent"}


@every_combination
def test_images_are_pinned(files: tuple[str, ...]) -> None:
    for name, service in read(*files)["services"].items():
        _, _, tag = service["image"].rpartition(":")
        assert tag == "local" or re.match(r"v?\d+\.\d+", tag), f"{name}: {service['image']}"


@every_combination
def test_secrets_are_files_and_never_in_the_environment(files: tuple[str, ...]) -> None:
    config = read(*files)
    for name, service in config["services"].items():
        for variable, value in (service.get("environment") or {}).items():
            if re.search(r"PASSWORD|SECRET|TOKEN|CREDENTIALS", variable):
                assert variable.endswith(("_FILE", "__FILE")), f"{name}: {variable}"
                assert str(value).startswith("/run/secrets/"), f"{name}: {variable}"
    assert all("file" in secret for secret in config["secrets"].values())


@every_combination
def test_each_agent_and_its_launcher_have_the_same_node_and_folder(files: tuple[str, ...]) -> None:
    services = read(*files)["services"]
    seen = set()
    for name in [name for name in services if kind(name) == "node-agent"]:
        launcher = name.replace("node-agent", "launcher")
        agent_says = services[name]["environment"]
        launcher_says = services[launcher]["environment"]
        node = agent_says["FOREBAY_NODE_AGENT_NODE"]
        folder = agent_says["FOREBAY_NODE_AGENT_STATE_DIR"]
        assert launcher_says["FOREBAY_LAUNCHER_NODE"] == node
        assert launcher_says["FOREBAY_LAUNCHER_STATE_DIR"] == folder
        # The aliases end at the agent itself.
        aliases = services[name]["networks"]["replicas"]["aliases"]
        assert launcher_says["FOREBAY_LAUNCHER_TRACE_URL"] == f"http://{aliases[0]}:4318/v1/traces"
        for service in (name, launcher):
            mounts = {v["target"]: v["source"] for v in services[service]["volumes"]}
            assert mounts[folder] == folder, "the engine and both of them need one path"
        sockets = {
            volume["source"]
            for service in (name, launcher)
            for volume in services[service]["volumes"]
            if volume["target"] == "/run/forebay"
        }
        assert len(sockets) == 1
        seen |= {node, folder, *sockets}
    assert len(seen) == 3 * sum(kind(name) == "node-agent" for name in services)


@every_combination
def test_services_can_read_what_they_are_told(
    files: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A misspelt variable would be a setting that is silently its default."""
    for name, service in read(*files)["services"].items():
        if kind(name) not in SERVICES:
            continue
        module = kind(name).replace("-", "_")
        prefix = f"FOREBAY_{module.upper()}_"
        settings = settings_class(module)
        with monkeypatch.context() as patched:
            for variable, value in service["environment"].items():
                # That one is every process's, as OTEL_… are.
                if variable.startswith("FOREBAY_") and variable != model_messages.VARIABLE:
                    assert variable.startswith(prefix), f"{name}: {variable}"
                    assert variable.removeprefix(prefix).lower() in settings.model_fields
                    if value is not None:
                        patched.setenv(variable, value)
            settings.load([])


@every_combination
def test_services_are_given_the_time_that_their_draining_takes(files: tuple[str, ...]) -> None:
    for name, service in read(*files)["services"].items():
        if kind(name) in ("router", "node-agent"):
            settings = settings_class(kind(name).replace("-", "_"))
            drain_s = settings.model_fields["drain_s"].default
            # Compose writes durations as Go does.
            minutes, _, rest = service["stop_grace_period"].partition("m")
            grace_s = int(minutes) * 60 + int(rest.rstrip("s") or 0)
            assert grace_s >= drain_s + 15, name


def test_a_fleet_keeps_streams_on_three_servers_and_all_its_processes_know() -> None:
    services = read("compose.yaml", "compose.fleet.yaml")["services"]
    assert sum(kind(name) == "nats" for name in services) == 3
    for name, service in services.items():
        module = kind(name).replace("-", "_")
        if kind(name) in SERVICES - {"launcher"}:
            said = service["environment"]
            assert said[f"FOREBAY_{module.upper()}_STREAM_REPLICAS"] == "3", name
            assert said[f"FOREBAY_{module.upper()}_NATS_URL"].count("nats://") == 3, name


def test_each_autoscaler_tells_an_address_that_others_reach() -> None:
    services = read("compose.yaml", "compose.fleet.yaml")["services"]
    told = {
        name: service["environment"]["FOREBAY_AUTOSCALER_ADVERTISE"].partition(":")[0]
        for name, service in services.items()
        if kind(name) == "autoscaler"
    }
    assert len(set(told.values())) == len(told) == 2
    for name, host in told.items():
        aliases = (services[name]["networks"]["mesh"] or {}).get("aliases", [])
        assert host in (name, *aliases)
        assert not any(
            host in (other, *((services[other]["networks"]["mesh"] or {}).get("aliases", [])))
            for other in told
            if other != name
        )


def test_prometheus_scrapes_ports_that_are_listened_on() -> None:
    services = read("compose.yaml")["services"]
    text = (ROOT / "deploy" / "prometheus" / "prometheus.yaml").read_text()
    found = re.findall(r"names: \[([a-z-]+)\]\s+type: A\s+port: (\d+)", text)
    assert {name for name, _ in found} == {"metrics", "router", "autoscaler"}
    for name, port in found:
        listen = services[name]["environment"][f"FOREBAY_{name.upper()}_HTTP_LISTEN"]
        assert listen == f"0.0.0.0:{port}"


def test_a_digest_pins_tritons_image() -> None:
    digest = "sha256:" + "0" * 64
    files = Compose("compose.yaml", "compose.gpu.yaml", FOREBAY_TRITON_DIGEST=digest)
    services = files.config()["services"]
    image = services["triton"]["image"]
    assert image.endswith(f"-py3@{digest}")
    assert services["launcher"]["environment"]["FOREBAY_LAUNCHER_DEFAULT_IMAGE"] == image


def test_without_what_init_writes_compose_says_what_to_do() -> None:
    done = Compose("compose.yaml", DOCKER_GID="").run("config", "--quiet")
    assert done.returncode
    assert "init.sh" in done.stderr


def test_the_example_of_settings_has_every_variable_of_the_files() -> None:
    text = "".join(file.read_text() for file in (ROOT / "deploy").glob("compose*.yaml"))
    used = set(re.findall(r"\$\{([A-Z0-9_]+)", text))
    # Those without a value are passed on as they are.
    used |= set(re.findall(r"^ +([A-Z0-9_]+):$", text, re.MULTILINE))
    example = (ROOT / "deploy" / ".env.example").read_text()
    described = set(re.findall(r"^#? ?([A-Z][A-Z0-9_]+)=", example, re.MULTILINE))
    assert used == described


def test_compose_config_is_json_without_warnings() -> None:
    done = Compose("compose.yaml").run("config", "--format", "json")
    assert isinstance(done, subprocess.CompletedProcess)
    assert not done.stderr
    json.loads(done.stdout)
