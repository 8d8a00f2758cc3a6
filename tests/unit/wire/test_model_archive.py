"""What goes into a model archive, and what is refused to come out of one."""

import io
import os
import tarfile
from pathlib import Path

import pytest

from services.wire import model_archive
from services.wire.model_archive import ModelArchiveError

CONFIG = b'name: "add"\nbackend: "python"\nmax_batch_size: 8\n'


@pytest.fixture
def model(tmp_path: Path) -> Path:
    directory = tmp_path / "model"
    (directory / "1" / "__pycache__").mkdir(parents=True)
    (directory / "config.pbtxt").write_bytes(CONFIG)
    (directory / "1" / "model.py").write_text("print()\n")
    (directory / "1" / "run.sh").write_text("#!/bin/sh\n")
    (directory / "1" / "run.sh").chmod(0o700)
    (directory / "1" / "__pycache__" / "model.pyc").write_text("x")
    return directory


def packed(directory: Path, archive: Path) -> str:
    with archive.open("wb") as out:
        return model_archive.pack(directory, out)


def tar(path: Path, *entries: tuple[tarfile.TarInfo, bytes]) -> Path:
    with tarfile.open(path, "w:") as archive:
        for entry, content in entries:
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return path


def file(name: str, content: bytes = b"x", kind: bytes = tarfile.REGTYPE, link: str = ""):
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = kind, link
    return entry, content


def folder(name: str):
    entry = tarfile.TarInfo(name)
    entry.type = tarfile.DIRTYPE
    return entry, b""


def test_unpacks_what_was_packed_without_caches(model: Path, tmp_path: Path) -> None:
    archive = tmp_path / "model.tar"
    packed(model, archive)
    assert model_archive.check(archive).max_batch_size == 8
    model_archive.unpack(archive, tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").rglob("*")) == [
        "1",
        "config.pbtxt",
        "model.py",
        "run.sh",
    ]
    assert os.access(tmp_path / "out" / "1" / "run.sh", os.X_OK)
    assert not os.access(tmp_path / "out" / "1" / "model.py", os.X_OK)


def test_the_digest_depends_on_content_only(model: Path, tmp_path: Path) -> None:
    first = packed(model, tmp_path / "a.tar")
    os.utime(model / "config.pbtxt", (1, 1))
    (model / ".git").mkdir()
    assert packed(model, tmp_path / "b.tar") == first
    assert model_archive.digest(tmp_path / "b.tar") == first
    assert model_archive.is_digest(first)
    (model / "config.pbtxt").write_bytes(CONFIG + b"\n")
    assert packed(model, tmp_path / "c.tar") != first


def test_follows_links_to_files_but_not_to_directories(model: Path, tmp_path: Path) -> None:
    weights = tmp_path / "weights"
    weights.write_text("w")
    (model / "1" / "weights").symlink_to(weights)
    packed(model, tmp_path / "a.tar")
    model_archive.unpack(tmp_path / "a.tar", tmp_path / "out")
    assert (tmp_path / "out" / "1" / "weights").read_text() == "w"
    (model / "2").symlink_to(tmp_path)
    with pytest.raises(ModelArchiveError, match="link to a directory"):
        packed(model, tmp_path / "b.tar")


def test_refuses_to_pack_what_is_no_model_directory(tmp_path: Path) -> None:
    with pytest.raises(ModelArchiveError, match=r"no config\.pbtxt"):
        model_archive.pack(tmp_path, io.BytesIO())


@pytest.mark.parametrize(
    ("entry", "complaint"),
    [
        (file("/etc/passwd"), "leads out"),
        (file("1/../../x"), "leads out"),
        (file("1/link", b"", tarfile.SYMTYPE, "/etc/passwd"), "neither a plain file"),
        (file("1/link", b"", tarfile.LNKTYPE, "config.pbtxt"), "neither a plain file"),
        (file("1/pipe", b"", tarfile.FIFOTYPE), "neither a plain file"),
        (file("1/device", b"", tarfile.CHRTYPE), "neither a plain file"),
        (file("1/sparse", b"", tarfile.GNUTYPE_SPARSE), "neither a plain file"),
        (file("config.pbtxt"), "twice"),
        (file("config.pbtxt/x"), "a file"),
    ],
)
def test_refuses_archives_that_are_not_safe_to_unpack(tmp_path: Path, entry, complaint) -> None:
    archive = tar(tmp_path / "bad.tar", file("config.pbtxt", CONFIG), file("1/a"), entry)
    with pytest.raises(ModelArchiveError, match=complaint):
        model_archive.check(archive)
    with pytest.raises(ModelArchiveError, match=complaint):
        model_archive.unpack(archive, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("entries", "complaint"),
    [
        ([file("1/model.py")], r"no config\.pbtxt"),
        ([file("config.pbtxt", CONFIG)], "no version"),
        ([file("config.pbtxt", CONFIG), folder("0"), file("1")], "no version"),
        ([folder("1"), file("config.pbtxt", b"\nmax_batch: 8")], r"line 2, column 1: .*max_batch"),
        ([folder("1"), file("config.pbtxt", b"\xff")], "not UTF-8"),
        ([folder("1"), file("config.pbtxt", b"#" * (1 << 21))], "at most"),
    ],
)
def test_refuses_archives_of_no_triton_model(tmp_path: Path, entries, complaint) -> None:
    with pytest.raises(ModelArchiveError, match=complaint):
        model_archive.check(tar(tmp_path / "bad.tar", *entries))


def test_takes_names_that_begin_with_a_dot_and_a_slash(tmp_path: Path) -> None:
    archive = tar(tmp_path / "a.tar", folder("."), file("./config.pbtxt", CONFIG), folder("./1"))
    assert model_archive.check(archive).name == "add"


@pytest.mark.parametrize("content", [b"", b"not a tar" * 200, b"\x1f\x8b" + b"x" * 1000])
def test_refuses_what_is_no_archive(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bad.tar"
    path.write_bytes(content)
    with pytest.raises(ModelArchiveError):
        model_archive.check(path)


def test_refuses_a_truncated_archive(model: Path, tmp_path: Path) -> None:
    (model / "1" / "weights").write_bytes(b"w" * 100_000)
    archive = tmp_path / "a.tar"
    packed(model, archive)
    archive.write_bytes(archive.read_bytes()[:60_000])
    with pytest.raises(ModelArchiveError):
        model_archive.check(archive)
