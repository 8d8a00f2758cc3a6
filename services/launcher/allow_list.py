"""Pure: which images may be run. What is not on the list is not pulled and not started.

A reference is compared in its long form, so that `triton:1`, `docker.io/library/triton:1` and
`index.docker.io/library/triton:1` are one image. A reference with a digest names content: a tag
beside it is for people and is left out.
"""

import re
from collections.abc import Iterable, Sequence

from services.wire.names import quoted

MAX_ENTRIES = 64
MAX_REFERENCE_CHARACTERS = 255
LEGAL = "name:tag or name@sha256:… with 64 hexadecimal digits"

_HUB = "docker.io"
_HOST = r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9a-f:]+\])(?::[0-9]{1,5})?"
_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_NAME_PART = re.compile(_PART)
_REFERENCE = re.compile(
    rf"(?:(?P<host>{_HOST})/)?(?P<path>{_PART}(?:/{_PART})*)"
    r"(?::(?P<tag>[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}|\*))?(?:@(?P<digest>sha256:[0-9a-f]{64}))?"
)
_IMAGE_ID = re.compile(r"sha256:[0-9a-f]{64}")
_EVERY = ":*"


class ImageNameError(ValueError):
    """Something that names no image; the text says what does."""


def normal(reference: str) -> str:
    """The long form of an image's reference.

    Args:
        reference: `name:tag`, `name@sha256:…` or `name`, which means its tag `latest`.

    Raises:
        ImageNameError: if it is none.
    """
    name, version = _parts(reference)
    if version == _EVERY:
        raise ImageNameError(f"{quoted(reference)} names no one image: write {LEGAL}")
    return name + version


def check_entries(entries: Sequence[str]) -> None:
    """Checks what an operator allows.

    Raises:
        ImageNameError: if an entry names no image.
        ValueError: if there are too many.
    """
    if len(entries) > MAX_ENTRIES:
        raise ValueError(f"{len(entries)} images; at most {MAX_ENTRIES} are allowed")
    for entry in entries:
        _parts(entry)


def is_allowed(reference: str, entries: Iterable[str]) -> bool:
    """Whether an entry of the list names an image.

    Args:
        reference: of the image.
        entries: `name:tag`, `name@sha256:…`, or `name:*` for every tag and digest of a name.

    Raises:
        ImageNameError: if the reference names no image.
    """
    wanted = normal(reference)
    name, _ = _parts(reference)
    return any("".join(_parts(entry)) in (wanted, name + _EVERY) for entry in entries)


def is_allowed_content(names: Iterable[str], entries: Sequence[str]) -> bool:
    """Whether an image is allowed by any of the names that the engine knows it by.

    Args:
        names: its `RepoTags` and `RepoDigests`.
        entries: as for `is_allowed`.
    """
    found = False
    for name in names:
        try:
            found = found or is_allowed(name, entries)
        except ImageNameError:
            # Such as `<none>:<none>`, which the engine calls an image that has lost its name.
            continue
    return found


def is_image_id(text: str) -> bool:
    """Whether `text` is the id of an image: `sha256:` and 64 hexadecimal digits."""
    return _IMAGE_ID.fullmatch(text) is not None


def _parts(reference: str) -> tuple[str, str]:
    """The long name of an image, and its `:tag` or `@digest`."""
    if len(reference) > MAX_REFERENCE_CHARACTERS:
        raise ImageNameError(
            f"an image of {len(reference)} characters; at most {MAX_REFERENCE_CHARACTERS}"
        )
    found = _REFERENCE.fullmatch(reference)
    if found is None or _IMAGE_ID.fullmatch(reference):
        raise ImageNameError(f"{quoted(reference)} names no image: write {LEGAL}")
    host, path = found["host"], found["path"]
    if host and not (set(host) & {".", ":", "["} or host == "localhost"):
        # `library/triton`: only what looks like a host is one.
        if not _NAME_PART.fullmatch(host):
            raise ImageNameError(f"{quoted(reference)} names no image: write {LEGAL}")
        host, path = None, f"{host}/{path}"
    if host in (None, "index.docker.io", _HUB):
        host, path = _HUB, path if "/" in path else f"library/{path}"
    digest, tag = found["digest"], found["tag"]
    if digest and tag == "*":
        raise ImageNameError(f"{quoted(reference)} has both * and a digest: leave one out")
    return f"{host}/{path}", f"@{digest}" if digest else f":{tag or 'latest'}"
