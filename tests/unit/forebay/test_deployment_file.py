"""Deployment files: what they mean, and what is said of wrong ones."""

from pathlib import Path

import pytest

from forebay.deployment_file import DeploymentFileError, DeploymentSpec, load, parse
from forebay.deployment_schema import schema
from forebay.v1.deployment_pb2 import Canary

LEGAL = """\
name: file-type
model: ./model
resources: {gpus: 0.5}
canary: off
request_timeout_s: 2.5
"""


def error_of(text: str) -> str:
    with pytest.raises(DeploymentFileError) as caught:
        parse(text, "d.yaml")
    return str(caught.value)


def test_only_name_and_model_are_needed() -> None:
    spec = parse("name: a\nmodel: m\n", "d.yaml").spec
    assert spec == DeploymentSpec(name="a", model="m")
    assert (spec.replicas, spec.max_ongoing_requests, spec.max_queued_requests) == (1, 8, 1000)
    assert (spec.request_timeout_s, spec.canary, spec.resources.gpus) == (60.0, "zeros", 0.0)


def test_off_is_a_word_and_not_false() -> None:
    assert parse(LEGAL, "d.yaml").spec.canary == "off"


def test_what_is_declared_reaches_the_autoscaler() -> None:
    proto = parse(LEGAL, "d.yaml").spec.to_proto("sha256:00")
    assert proto.name == "deployments/file-type"
    assert proto.model_digest == "sha256:00"
    assert proto.resources.gpus == 0.5
    assert proto.canary.mode == Canary.MODE_OFF
    assert proto.request_timeout.ToMilliseconds() == 2500


def test_an_image_reaches_the_autoscaler_and_a_wrong_one_does_not() -> None:
    proto = parse(LEGAL + "image: registry:5000/triton:24.10\n", "d.yaml").spec.to_proto("x")
    assert proto.image == "registry:5000/triton:24.10"
    said = error_of(LEGAL + "image: triton\n")
    assert said.startswith("d.yaml:6: image = 'triton'; legal is name:tag or name@sha256:")
    assert "legal is name:tag" in error_of(LEGAL + "image: 7\n")
    assert "legal is name:tag" in error_of(LEGAL + f"image: a:{'x' * 300}\n")
    assert schema()["properties"]["image"]["maxLength"] == 255


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("replicas: 1001", "d.yaml:3: replicas = 1001; legal is a whole number from 0 to 1000"),
        ("replicas: '2'", "d.yaml:3: replicas = '2'; legal is a whole number"),
        ("replicas: true", "d.yaml:3: replicas = True; legal is a whole number"),
        ("replica: 2", "d.yaml:3: unknown key replica = 2; did you mean replicas? legal keys are"),
        ("request_timeout_s: 0", "d.yaml:3: request_timeout_s = 0; legal is seconds from 0.001"),
        ("request_timeout_s: .nan", "d.yaml:3: request_timeout_s = nan; legal is seconds"),
        ("max_ongoing_requests: 0", "legal is a whole number from 1 to 1024"),
        ("canary: ones", "d.yaml:3: canary = 'ones'; legal is zeros or off"),
        ("resources: 3", "d.yaml:3: resources = 3; legal is a mapping"),
        ("resources:\n  gpus: 1.5", "d.yaml:4: resources.gpus = 1.5; legal is 0, a fraction"),
        ("resources:\n  gpu: 1", "d.yaml:4: unknown key resources.gpu = 1; did you mean gpus?"),
        ("name: again", "d.yaml:3: name is here twice; it is also on line 1"),
        ("resources: [1", "d.yaml:4:1: expected ',' or ']'"),
        ("canary: *x", "d.yaml:3:9: found undefined alias"),
    ],
)
def test_an_error_names_file_line_key_value_and_what_is_legal(line: str, said: str) -> None:
    assert said in error_of(f"name: a\nmodel: m\n{line}\n")


@pytest.mark.parametrize("name", ["A", "a.b", "a/b", "", "é", "a" * 64, "a-"])
def test_a_name_that_cannot_be_a_deployments_is_refused(name: str) -> None:
    assert "legal is 1 to 63 of a-z" in error_of(f"name: {name!r}\nmodel: m\n")


def test_a_missing_key_is_named_with_what_it_takes() -> None:
    assert error_of("name: a\n") == (
        "d.yaml:1: model is missing; legal is path of a Triton model directory, relative to this "
        "file"
    )


@pytest.mark.parametrize("text", ["", "- 1\n", "just words\n"])
def test_what_is_no_mapping_is_told_the_keys(text: str) -> None:
    assert error_of(text).startswith("d.yaml:1: a deployment file is a mapping of keys to values")


def test_two_documents_are_one_too_many() -> None:
    assert "d.yaml:" in error_of("name: a\nmodel: m\n---\nname: b\nmodel: m\n")


def test_a_directory_stands_for_its_deployment_file(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.pbtxt").write_text("")
    (tmp_path / "deployment.yaml").write_text(LEGAL)
    file = load(tmp_path)
    assert file.path == tmp_path / "deployment.yaml"
    assert file.model_directory == tmp_path / "model"


def test_a_model_that_is_not_there_is_named_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "deployment.yaml").write_text(LEGAL)
    with pytest.raises(DeploymentFileError, match=r"deployment\.yaml:2: model = './model'"):
        load(tmp_path)


@pytest.mark.parametrize("content", [None, b"\xff\xfe\x00"])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "d.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DeploymentFileError, match=r"d\.yaml"):
        load(path)
