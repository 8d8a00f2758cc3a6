"""What a replica's resources become: instances of its model, variables of its Triton."""

from pathlib import Path

import pytest
from google.protobuf import text_format

from forebay.v1.autoscaler_pb2 import Assignment
from forebay.v1.deployment_pb2 import ReplicaResources
from services.node_agent import replica_environment
from services.node_agent.models.model_cache import build_repository
from services.node_agent.replica_environment import THREAD_VARIABLES, variables, visible_gpus
from services.node_agent.triton.instance_groups import with_workers, without_gpus
from services.node_agent.triton.triton_home import TritonHome
from services.wire.triton_stubs import model_config_pb2

Group = model_config_pb2.ModelInstanceGroup


def config(text: str) -> model_config_pb2.ModelConfig:
    return text_format.Parse(text, model_config_pb2.ModelConfig())


def groups(made: model_config_pb2.ModelConfig) -> list[tuple[int, int]]:
    return [(group.kind, group.count) for group in made.instance_group]


def test_workers_are_the_count_of_the_one_group_whose_kind_stays() -> None:
    made = with_workers(config("instance_group [ { count: 1, kind: KIND_CPU } ]"), 3)
    assert groups(made) == [(Group.KIND_CPU, 3)]


def test_a_model_without_groups_gets_one_whose_kind_triton_chooses() -> None:
    assert groups(with_workers(config('backend: "python"'), 2)) == [(Group.KIND_AUTO, 2)]


def test_workers_are_the_count_of_each_group_on_cpus_and_gpus_and_of_no_other() -> None:
    several = config(
        "instance_group [ { name: 'a' count: 1 kind: KIND_CPU }, { count: 4 kind: KIND_GPU gpus: 0 "
        "}, { count: 1 kind: KIND_MODEL } ]"
    )
    made = with_workers(several, 2)
    assert groups(made) == [(Group.KIND_CPU, 2), (Group.KIND_GPU, 2), (Group.KIND_MODEL, 1)]
    assert made.instance_group[0].name == "a"
    assert list(made.instance_group[1].gpus) == [0]
    assert several.instance_group[1].count == 4


def test_no_workers_leave_the_models_own_configuration() -> None:
    own = config("instance_group [ { count: 5 kind: KIND_GPU } ]")
    assert with_workers(own, 0) == own
    assert not with_workers(config('backend: "python"'), 0).instance_group


def test_an_ensemble_has_no_instances() -> None:
    ensemble = config('platform: "ensemble" ensemble_scheduling { }')
    assert with_workers(ensemble, 4) == ensemble


def test_on_simulated_gpus_what_was_for_gpus_runs_on_the_cpu() -> None:
    made = without_gpus(config("instance_group [ { count: 2 kind: KIND_GPU gpus: [ 0, 1 ] } ]"))
    assert groups(made) == [(Group.KIND_CPU, 2)]
    assert not made.instance_group[0].gpus


def test_the_repository_has_the_workers_and_all_else_of_the_models_configuration(
    tmp_path: Path,
) -> None:
    model = tmp_path / "model"
    (model / "1").mkdir(parents=True)
    (model / "config.pbtxt").write_text(
        'backend: "python"\nmax_batch_size: 8\n'
        "dynamic_batching { max_queue_delay_microseconds: 100 }\n"
    )
    build_repository(model, tmp_path / "repository", "named", workers=4, gpus_simulated=True)
    written = config((tmp_path / "repository" / "named" / "config.pbtxt").read_text())
    assert groups(written) == [(Group.KIND_AUTO, 4)]
    assert (written.name, written.max_batch_size) == ("named", 8)
    assert written.dynamic_batching.max_queue_delay_microseconds == 100


@pytest.mark.parametrize(
    ("cpus", "threads"), [(0, "1"), (0.5, "1"), (1.99, "1"), (2, "2"), (7.5, "7")]
)
def test_threads_are_the_cpus_declared_rounded_down_and_at_least_one(
    cpus: float, threads: str
) -> None:
    made = variables(Assignment(resources=ReplicaResources(cpus=cpus)))
    assert {made[name] for name in THREAD_VARIABLES} == {threads}


def test_a_variable_of_the_deployment_wins_over_the_thread_count_but_not_over_the_cpus() -> None:
    made = variables(
        Assignment(
            resources=ReplicaResources(cpus=2.5),
            environment={"OMP_NUM_THREADS": "16", "MINE": "x", "FOREBAY_CPUS": "99"},
        )
    )
    assert made["OMP_NUM_THREADS"] == "16"
    assert made["MKL_NUM_THREADS"] == "2"
    assert made["MINE"] == "x"
    assert made["FOREBAY_CPUS"] == "2.5"


def test_a_triton_sees_the_gpus_it_was_given_and_no_simulated_ones() -> None:
    real = Assignment(gpu_uuids=["GPU-1", "GPU-2"])
    assert visible_gpus(real) == ("GPU-1", "GPU-2")
    assert not replica_environment.runs_on_simulated_gpus(real)
    simulated = Assignment(gpu_uuids=["SIM-node-1-0"])
    assert visible_gpus(simulated) == ()
    assert replica_environment.runs_on_simulated_gpus(simulated)


def test_variables_of_a_replica_keep_triton_able_to_find_its_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FOREBAY_NODE_AGENT_NATS_URL", "nats://secret")
    home = TritonHome(tmp_path, tmp_path / "backends")
    made = home.process_environment(
        tmp_path / "env", {"PATH": "/mine", "LD_LIBRARY_PATH": "/lib/mine", "VIRTUAL_ENV": "/else"}
    )
    assert made["PATH"] == f"{tmp_path}/env/bin:/mine"
    assert made["LD_LIBRARY_PATH"] == f"{tmp_path}/lib:/lib/mine"
    assert made["VIRTUAL_ENV"] == f"{tmp_path}/env"
    assert "FOREBAY_NODE_AGENT_NATS_URL" not in made
