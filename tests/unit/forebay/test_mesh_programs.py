"""What `forebay up` is told becomes flags of the mesh's programs."""

from pathlib import Path

import pytest

from forebay.cli.failure import CliError
from forebay.cli.up import DEFAULT_MAX_NODES, check_gpus, nodes_to_add
from forebay.local import programs
from forebay.local.nats_server import NatsFiles
from forebay.local.programs import MeshAddresses, MeshOptions

ADDRESSES = MeshAddresses(
    router="127.0.0.1:1",
    autoscaler="127.0.0.1:2",
    metrics="127.0.0.1:3",
    metrics_http="127.0.0.1:4",
    nats="127.0.0.1:5",
    autoscalers=("127.0.0.1:2",),
)
TWO = MeshAddresses(
    router="127.0.0.1:1",
    autoscaler="127.0.0.1:2",
    metrics="127.0.0.1:3",
    metrics_http="127.0.0.1:4",
    nats="127.0.0.1:5",
    autoscalers=("127.0.0.1:2", "127.0.0.1:6"),
)


def flags(options: MeshOptions, addresses: MeshAddresses = ADDRESSES) -> dict[str, dict[str, str]]:
    """Flags with their values of each program."""
    files = NatsFiles(Path("/config"), Path("/credentials"))
    found = {}
    for spec in programs.services(options, addresses, files):
        words = list(spec.command[spec.command.index("-m") + 2 :])
        found[spec.name] = dict(zip(words[::2], words[1::2], strict=True))
    return found


def options(tmp_path: Path, **fields: object) -> MeshOptions:
    return MeshOptions(state_dir=tmp_path / "state", triton_home=tmp_path / "triton", **fields)


def test_by_default_there_is_one_autoscaler_and_gpus_are_nvmls(tmp_path: Path) -> None:
    found = flags(options(tmp_path))
    assert list(found) == ["metrics", "autoscaler", "router", "node-1"]
    assert found["node-1"]["--autoscaler"] == "127.0.0.1:2"
    assert not [flag for flag in found["node-1"] if "simulated" in flag]
    assert "--node-provider" not in found["autoscaler"]


def test_simulated_gpus_reach_every_node(tmp_path: Path) -> None:
    found = flags(options(tmp_path, nodes=2, gpus_per_node=3, gpu_product="L4"))
    for node in ("node-1", "node-2"):
        assert found[node]["--simulated-gpus"] == "3"
        assert found[node]["--simulated-gpu-product"] == "L4"


def test_agents_know_both_autoscalers_which_listen_apart(tmp_path: Path) -> None:
    given = options(tmp_path, autoscalers=2, autoscaler_flags={"--node-grace-s": "2"})
    found = flags(given, TWO)
    assert found["node-1"]["--autoscaler"] == "127.0.0.1:2,127.0.0.1:6"
    assert found["autoscaler"]["--listen"] == "127.0.0.1:2"
    assert found["autoscaler-2"]["--listen"] == "127.0.0.1:6"
    assert found["autoscaler-2"]["--node-grace-s"] == "2"


def test_nodes_that_are_added_are_like_those_that_are_there(tmp_path: Path) -> None:
    given = options(tmp_path, slots=1, gpus_per_node=2, gpu_product="L4", max_nodes=3)
    found = flags(given)["autoscaler"]
    assert {flag: value for flag, value in found.items() if "-local-" in flag} == {
        "--local-max-nodes": "3",
        "--local-state-dir": str(tmp_path / "state" / "nodes"),
        "--local-triton-home": str(tmp_path / "triton"),
        "--local-slots": "1",
        "--local-autoscaler": "127.0.0.1:2",
        "--local-simulated-gpus": "2",
        "--local-simulated-gpu-product": "L4",
    }
    assert found["--node-provider"] == "local"


def test_every_node_offers_the_same_volumes_those_that_are_added_too(tmp_path: Path) -> None:
    found = flags(options(tmp_path, nodes=2, max_nodes=1, volumes={"data": "/srv/data:ro"}))
    said = '{"data": "/srv/data:ro"}'
    assert [found[node]["--volumes"] for node in ("node-1", "node-2")] == [said, said]
    assert found["autoscaler"]["--local-volumes"] == said
    assert "--volumes" not in flags(options(tmp_path))["node-1"]


@pytest.mark.parametrize(
    ("gpus_per_node", "simulated", "product", "said"),
    [
        (2, False, None, "--gpus-per-node 2 is for simulated GPUs: add --simulated-gpus"),
        (0, True, None, "say how many with --gpus-per-node"),
        (0, False, "L4", "--gpu-product 'L4' is for simulated GPUs"),
    ],
)
def test_gpus_that_nobody_makes_up_are_refused_in_a_sentence(
    gpus_per_node: int, simulated: bool, product: str | None, said: str
) -> None:
    with pytest.raises(CliError, match=said):
        check_gpus(gpus_per_node, simulated, product)


def test_a_number_of_nodes_without_a_provider_is_refused() -> None:
    assert nodes_to_add("none", None) == 0
    assert nodes_to_add("local", 2) == 2
    assert nodes_to_add("local", None) == DEFAULT_MAX_NODES
    with pytest.raises(CliError, match="--max-nodes 2: add --node-provider local"):
        nodes_to_add("none", 2)
