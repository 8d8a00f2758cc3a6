"""The archive a model travels in: an uncompressed tar of a Triton model directory.

Entries are relative to the model directory: `config.pbtxt`, `1/model.py`, `requirements.txt`. The
same directory always packs to the same bytes, so that the digest over the archive names the
content. Nothing here trusts an archive: `check` and `unpack` refuse whatever could be written
outside the directory it is unpacked into, or is larger unpacked than packed.

Everything blocks on files; callers on an event loop use a thread.
"""

import hashlib
import io
import re
import shutil
import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, BinaryIO

from google.protobuf import text_format

from services.wire.names import quoted
from services.wire.triton_stubs import model_config_pb2

if TYPE_CHECKING:
    from typing_extensions import Buffer

CONFIG_FILE = "config.pbtxt"
SKIPPED = frozenset({"__pycache__", ".git"})
"""Names left out of an archive wherever they stand."""

MAX_ENTRIES = 100_000
MAX_CONFIG_BYTES = 1 << 20

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_VERSION = re.compile(r"[1-9][0-9]{0,18}")
_BUFFER_BYTES = 1 << 20
_FILE_MODE = 0o644
_EXECUTABLE_MODE = 0o755


class ModelArchiveError(ValueError):
    """What is not a model archive or cannot become one; the text says what is wrong with it."""


def is_digest(text: str) -> bool:
    """Whether `text` is `sha256:` and 64 hexadecimal digits in lower case."""
    return _DIGEST.fullmatch(text) is not None


def digest(path: Path) -> str:
    """The digest of the archive in a file."""
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


def pack(directory: Path, out: BinaryIO) -> str:
    """Writes a model directory as an archive and returns its digest.

    Links to files are followed, links to directories are refused.

    Args:
        directory: holds `config.pbtxt` and the versions.
        out: where the archive goes.

    Raises:
        ModelArchiveError: if `directory` is not a directory with a `config.pbtxt`, or holds
            what cannot be packed. Whether Triton will take it is for `check` to say.
        OSError: if a file cannot be read.
    """
    if not (directory / CONFIG_FILE).is_file():
        raise ModelArchiveError(
            f"{directory} is not a Triton model directory: it has no {CONFIG_FILE}"
        )
    hashing = _HashingWriter(out)
    with tarfile.open(fileobj=hashing, mode="w|", format=tarfile.PAX_FORMAT) as archive:
        for path in _walk(directory):
            _add(archive, path, path.relative_to(directory).as_posix())
    return f"sha256:{hashing.sha256.hexdigest()}"


def check(path: Path) -> model_config_pb2.ModelConfig:
    """Checks that a file is an archive of a Triton model directory that is safe to unpack.

    Returns:
        The model's configuration.

    Raises:
        ModelArchiveError: if it is not; errors in `config.pbtxt` are given by line and column.
    """
    with _open(path) as archive:
        entries = dict(_entries(archive))
        config = entries.get(CONFIG_FILE)
        if config is None or not config.isreg():
            raise ModelArchiveError(f"the archive has no {CONFIG_FILE} at its root")
        versions = {name.split("/")[0] for name, entry in entries.items() if _inside(name, entry)}
        if not any(_VERSION.fullmatch(version) for version in versions):
            raise ModelArchiveError(
                "the archive has no version: a model needs at least one directory whose name is "
                "a positive integer, such as 1"
            )
        return parse_config(_read(archive, config))


def unpack(path: Path, directory: Path) -> None:
    """Unpacks an archive into a directory, which is created; what is there is not overwritten.

    Raises:
        ModelArchiveError: if the archive is not safe to unpack.
        OSError: if a file cannot be written or is already there.
    """
    with _open(path) as archive:
        entries = dict(_entries(archive))
        directory.mkdir(parents=True, exist_ok=True)
        for name, entry in entries.items():
            target = directory / name
            if entry.isdir():
                target.mkdir(mode=_EXECUTABLE_MODE, parents=True, exist_ok=True)
                continue
            target.parent.mkdir(mode=_EXECUTABLE_MODE, parents=True, exist_ok=True)
            source = archive.extractfile(entry)
            assert source is not None, "only regular files are left"
            with source, target.open("xb") as out:
                shutil.copyfileobj(source, out, _BUFFER_BYTES)
            target.chmod(_EXECUTABLE_MODE if entry.mode & stat.S_IXUSR else _FILE_MODE)


class _HashingWriter(io.RawIOBase):
    """A file that hashes what passes through it."""

    def __init__(self, out: BinaryIO) -> None:
        super().__init__()
        self._out = out
        self.sha256 = hashlib.sha256()

    def write(self, chunk: "Buffer", /) -> int:
        self.sha256.update(chunk)
        return self._out.write(chunk)


def _walk(directory: Path) -> Iterator[Path]:
    # By name within each directory: the order in which the system lists them is not the content's.
    for path in sorted(directory.iterdir(), key=lambda entry: entry.name):
        if path.name in SKIPPED:
            continue
        yield path
        if path.is_dir():
            if path.is_symlink():
                raise ModelArchiveError(f"{path} is a link to a directory, which a model cannot be")
            yield from _walk(path)


def _add(archive: tarfile.TarFile, path: Path, name: str) -> None:
    entry = tarfile.TarInfo(name)
    try:
        status = path.stat()
    except FileNotFoundError:
        raise ModelArchiveError(f"{path} is a link that leads nowhere") from None
    if stat.S_ISDIR(status.st_mode):
        entry.type, entry.mode = tarfile.DIRTYPE, _EXECUTABLE_MODE
        archive.addfile(entry)
        return
    if not stat.S_ISREG(status.st_mode):
        raise ModelArchiveError(f"{path} is neither a file nor a directory")
    entry.size = status.st_size
    entry.mode = _EXECUTABLE_MODE if status.st_mode & stat.S_IXUSR else _FILE_MODE
    with path.open("rb") as file:
        archive.addfile(entry, file)


def _open(path: Path) -> tarfile.TarFile:
    try:
        return tarfile.open(path, mode="r:")
    except tarfile.TarError as error:
        raise ModelArchiveError(f"not an uncompressed tar archive: {error}") from error


def _entries(archive: tarfile.TarFile) -> Iterator[tuple[str, tarfile.TarInfo]]:
    """The entries by their normalised names, each of them safe to unpack after those before it."""
    kinds: dict[str, bool] = {}
    try:
        for count, entry in enumerate(archive):
            if count >= MAX_ENTRIES:
                raise ModelArchiveError(f"the archive has more than {MAX_ENTRIES} entries")
            name = _safe_name(entry)
            if name is None:
                continue
            if name in kinds:
                raise ModelArchiveError(f"{quoted(name)} is in the archive twice")
            for parent in PurePosixPath(name).parents:
                if kinds.setdefault(str(parent), True) is False:
                    raise ModelArchiveError(
                        f"{quoted(name)} is below {quoted(str(parent))}, a file"
                    )
            kinds[name] = entry.isdir()
            yield name, entry
    except (tarfile.TarError, OverflowError) as error:
        raise ModelArchiveError(f"the archive is damaged: {error}") from error


def _safe_name(entry: tarfile.TarInfo) -> str | None:
    path = PurePosixPath(entry.name)
    if path.is_absolute() or ".." in path.parts or "\0" in entry.name:
        raise ModelArchiveError(f"{quoted(entry.name)} leads out of the model directory")
    if entry.type not in (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.DIRTYPE) or entry.issparse():
        raise ModelArchiveError(
            f"{quoted(entry.name)} is neither a plain file nor a directory: links, devices and "
            "sparse files cannot be in a model"
        )
    return str(path) if path.parts else None


def _inside(name: str, entry: tarfile.TarInfo) -> bool:
    return "/" in name or entry.isdir()


def _read(archive: tarfile.TarFile, entry: tarfile.TarInfo) -> bytes:
    if entry.size > MAX_CONFIG_BYTES:
        raise ModelArchiveError(
            f"{CONFIG_FILE} has {entry.size} bytes; at most {MAX_CONFIG_BYTES} are taken"
        )
    source = archive.extractfile(entry)
    assert source is not None, "a regular file"
    with source:
        return source.read()


def parse_config(content: bytes) -> model_config_pb2.ModelConfig:
    """Parses a config.pbtxt.

    Raises:
        ModelArchiveError: with the line and column of what is wrong.
    """
    try:
        config: model_config_pb2.ModelConfig = text_format.Parse(
            content.decode(), model_config_pb2.ModelConfig()
        )
    except UnicodeDecodeError as error:
        raise ModelArchiveError(f"{CONFIG_FILE} is not UTF-8: {error}") from error
    except text_format.ParseError as error:
        # Its text begins with the position, as `line:column : `.
        reason = str(error).split(" : ", 1)[-1]
        raise ModelArchiveError(
            f"{CONFIG_FILE}, line {error.GetLine()}, column {error.GetColumn()}: {reason}"
        ) from error
    return config
