"""What `forebay status` says of load."""

import pytest

from forebay.cli import show
from forebay.cli.output import to_plain
from forebay.v1.deployment_pb2 import Deployment
from forebay.v1.metrics_pb2 import DeploymentLoad


def printed(capsys: pytest.CaptureFixture[str], load: DeploymentLoad | None) -> str:
    deployment = Deployment(name="deployments/add")
    show._print_all([deployment], {"deployments/add": load} if load else {})
    return capsys.readouterr().out.splitlines()[1]


def test_tasks_are_told_apart_where_there_are_any(capsys: pytest.CaptureFixture[str]) -> None:
    load = DeploymentLoad(
        queued_count=7, ongoing_count=2, queued_task_count=5, ongoing_task_count=1
    )
    assert "7 (5 tasks)  2 (1 task)" in printed(capsys, load)
    load = DeploymentLoad(
        queued_count=7, ongoing_count=2, queued_task_count=0, ongoing_task_count=0
    )
    assert "task" not in printed(capsys, load)
    assert "unknown  unknown" in printed(capsys, None)


def test_more_gpu_memory_than_declared_is_shown() -> None:
    deployment = Deployment(name="deployments/add", replicas=1, image="triton:1")
    deployment.resources.gpu_memory_bytes = 8 << 30
    deployment.status.max_gpu_memory_used_bytes = 19 << 29
    deployment.status.warnings.append("replica x uses too much")
    facts = show._facts(deployment, None)
    assert ("GPU memory in use", "9.5 GiB by the largest replica, 8 GiB declared") in facts
    assert ("warning", "replica x uses too much") in facts
    assert ("image", "triton:1") in facts
    assert show._state(deployment) == "ready (1 warning)"
    told = to_plain(deployment)["status"]
    assert told["warnings"] == ["replica x uses too much"]
    assert told["max_gpu_memory_used_bytes"] == 19 << 29
