"""Volumes in a deployment file: how they are written, and what is said of wrong ones."""

import pytest

from forebay.deployment_file import DeploymentFileError, parse
from forebay.deployment_schema import schema

HEAD = "name: a\nmodel: m\nvolumes:\n"


def volumes_of(text: str) -> list[tuple[str, bool]]:
    proto = parse(HEAD + text, "d.yaml").spec.to_proto("sha256:00")
    return [(volume.name, volume.read_only) for volume in proto.volumes]


def test_a_volume_is_a_name_or_a_name_with_options() -> None:
    text = "- data\n- weights: {read_only: true}\n- logs:\n"
    assert volumes_of(text) == [("data", False), ("logs", False), ("weights", True)]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("- data\n- data", "d.yaml:5: volumes.1 = 'data' is named before, as volumes.0"),
        ("- Data", "d.yaml:4: volumes.0 = 'Data' cannot name a volume; legal is 1 to 63 of a-z"),
        ("- /srv", "d.yaml:4: volumes.0 = '/srv' cannot name a volume"),
        ("- 3", "d.yaml:4: volumes.0 = 3; legal is a list of at most 16 volumes"),
        ("- {a: {}, b: {}}", "d.yaml:4: volumes.0 = {'a': {}, 'b': {}}; legal is a list"),
        ("- w: /srv", "d.yaml:4: volumes.0.w = '/srv'; legal is left out, or {read_only: true}"),
        ("- w:\n    read_only: 1", "d.yaml:5: volumes.0.w.read_only = 1; legal is true or false"),
        (
            "- w: {readonly: true}",
            "d.yaml:4: unknown key volumes.0.w.readonly = True; did you mean read_only? legal "
            "keys are read_only",
        ),
        ("\n".join(f"- v{i}" for i in range(17)), "d.yaml:3: volumes = ['v0'"),
    ],
)
def test_an_error_names_line_key_value_and_what_is_legal(text: str, said: str) -> None:
    with pytest.raises(DeploymentFileError) as caught:
        parse(HEAD + text + "\n", "d.yaml")
    assert said in str(caught.value)


def test_the_variables_of_volumes_are_the_node_agents() -> None:
    with pytest.raises(DeploymentFileError, match="is set by the node agent; leave it out"):
        parse("name: a\nmodel: m\nenvironment: {FOREBAY_VOLUME_DATA: /etc}\n", "d.yaml")


def test_editors_know_both_forms() -> None:
    kinds = [kind["type"] for kind in schema()["properties"]["volumes"]["items"]["anyOf"]]
    assert kinds == ["string", "object"]
