"""What is not on the list is not run, however it is spelt."""

import pytest

from services.launcher import allow_list

DIGEST = "sha256:" + "0f" * 32
ENTRIES = ("forebay/triton-cpu:1", "nvcr.io/nvidia/tritonserver:*", f"ghcr.io/me/triton@{DIGEST}")


@pytest.mark.parametrize(
    "reference",
    [
        "forebay/triton-cpu:1",
        "docker.io/forebay/triton-cpu:1",
        "index.docker.io/forebay/triton-cpu:1",
        "nvcr.io/nvidia/tritonserver:26.06-py3",
        f"nvcr.io/nvidia/tritonserver@{DIGEST}",
        f"nvcr.io/nvidia/tritonserver:26.06-py3@{DIGEST}",
        f"ghcr.io/me/triton@{DIGEST}",
        f"ghcr.io/me/triton:any@{DIGEST}",
    ],
)
def test_an_image_on_the_list_is_allowed_in_every_spelling(reference: str) -> None:
    assert allow_list.is_allowed(reference, ENTRIES)


@pytest.mark.parametrize(
    "reference",
    [
        "forebay/triton-cpu",
        "forebay/triton-cpu:2",
        "forebay/triton-cpu:10",
        "evil.io/forebay/triton-cpu:1",
        "localhost/forebay/triton-cpu:1",
        "nvcr.io/nvidia/tritonserver-evil:1",
        "nvcr.io/nvidia/tritonserver/evil:1",
        "nvcr.io:443/nvidia/tritonserver:1",
        "ghcr.io/me/triton:latest",
        f"forebay/triton-cpu:1@{DIGEST}",
        "ghcr.io/me/triton@" + DIGEST.replace("0f", "1f"),
    ],
)
def test_an_image_that_is_not_on_the_list_is_refused(reference: str) -> None:
    assert not allow_list.is_allowed(reference, ENTRIES)


@pytest.mark.parametrize(
    "reference",
    [
        "", "a b", "A/b:1", "../x:1", "x:1/../y", "x:-1", "x@sha256:0f", DIGEST, "x:*", "x:1\n",
        "x" * 256, "http://x/y", "x//y", "x:", ":1", "x@", f"x:*@{DIGEST}",
    ],
)  # fmt: skip
def test_what_names_no_image_is_refused(reference: str) -> None:
    with pytest.raises(allow_list.ImageNameError):
        allow_list.is_allowed(reference, ENTRIES)


def test_a_name_without_a_tag_means_latest() -> None:
    assert allow_list.normal("triton") == "docker.io/library/triton:latest"
    assert allow_list.normal("localhost:5000/triton") == "localhost:5000/triton:latest"


def test_content_is_allowed_by_any_of_its_names() -> None:
    assert allow_list.is_allowed_content(["<none>:<none>", "forebay/triton-cpu:1"], ENTRIES)
    assert not allow_list.is_allowed_content(["<none>:<none>", "other:1"], ENTRIES)
    assert not allow_list.is_allowed_content([], ENTRIES)


def test_the_list_is_bounded() -> None:
    with pytest.raises(ValueError, match="at most 64"):
        allow_list.check_entries([f"x:{n}" for n in range(65)])
