"""Functions that cannot start or be deployed, and scripts, on a whole mesh with a real Triton."""

import asyncio
import json
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

import forebay
from forebay.functions import connections, loading
from forebay.task_client import why_waiting
from tests.support.eventually import eventually
from tests.support.forebay_up import ForebayUp
from tests.support.functions_mesh import functions_mesh


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForebayUp]:
    with functions_mesh(tmp_path_factory.mktemp("scripts")) as up:
        yield up


@pytest.mark.parametrize(
    ("name", "options", "body", "said"),
    [
        ("starts", "", "class f:\n  def on_start(self): self.load()\n"
         "  def load(self): raise OSError('no weights')\n  def __call__(self, x): ...",
         ("OSError: no weights", "line 5, in on_start", "in load")),
        ("requires", ", requirements=['no-such-package-xyz==1']", "def f(x): ...",
         ("requirements.txt cannot be installed", "no-such-package-xyz")),
    ],
)  # fmt: skip
async def test_what_cannot_start_is_told_with_the_users_traceback(
    mesh: ForebayUp, tmp_path: Path, name: str, options: str, body: str, said: tuple[str, ...]
) -> None:
    scaling = "scaling=forebay.QueueDepth(min_replicas=1)"
    (tmp_path / "it.py").write_text(
        f"import forebay\n\n@forebay.function(name={name!r}, {scaling}{options})\n{body}\n"
    )
    ran = mesh.forebay("deploy", tmp_path / "it.py", timeout_s=170)
    assert ran.code == 1
    for words in said:
        assert words in ran.err
    # It is tried again now and then.
    await eventually(lambda: "failed" in mesh.forebay("status", name).ok().out)
    mesh.forebay("delete", name).ok()


_HOPELESS = """
import forebay

@forebay.function
class hopeless:
    def on_start(self):
        raise OSError("no weights")
    def __call__(self, item):
        return item
"""


async def test_who_waits_for_what_cannot_start_is_told_why(
    mesh: ForebayUp,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(why_waiting, "LOOK_S", 0.05)
    (tmp_path / "hopeless_xyz.py").write_text(_HOPELESS)
    hopeless = loading.load(tmp_path / "hopeless_xyz.py").hopeless
    await hopeless.adeploy()
    call = await hopeless.asubmit(b"a")

    async def late() -> str:
        with pytest.raises(forebay.DeadlineExceededError) as raised:
            await call.result(0.3)
        assert "no replica of hopeless is ready: " in str(raised.value)
        assert "OSError: no weights" in str(raised.value)
        return str(raised.value)

    told: str = await eventually(late, 60)
    assert told.startswith(f"{call.name} has not ended within 0.3 s")
    assert f"{call.name} waits: no replica of hopeless is ready" in caplog.text
    mapped = hopeless.amap([b"a", b"b"])
    reading = asyncio.ensure_future(anext(mapped))
    said = f"batch {mapped.batch} waits: no replica of hopeless is ready"
    await eventually(lambda: said in caplog.text, 60)
    reading.cancel()
    await asyncio.wait([reading])
    await connections.aclose()
    mesh.forebay("delete", hopeless.name).ok()


def test_a_file_that_python_refuses_is_refused_before_anything_is_deployed(
    mesh: ForebayUp, tmp_path: Path
) -> None:
    (tmp_path / "it.py").write_text("x = = 1\n")
    ran = mesh.forebay("deploy", f"{tmp_path / 'it.py'}:f")
    assert (ran.code, "it.py:1: invalid syntax" in ran.err) == (2, True)
    (tmp_path / "it.py").write_text("import not_there_xyz\n")
    ran = mesh.forebay("deploy", tmp_path / "it.py")
    assert ran.code == 2
    assert "Install not_there_xyz here too, or import it inside the function" in ran.err


def test_wrong_parameters_are_told_as_those_of_a_file_are(mesh: ForebayUp, tmp_path: Path) -> None:
    (tmp_path / "it.py").write_text(
        "import forebay\n\n@forebay.function(gpus=1.5, scaling=forebay.QueueSize(queue_size=-1))\n"
        "def f(x): ...\n"
    )
    ran = mesh.forebay("deploy", tmp_path / "it.py")
    assert ran.code == 2
    assert "it.py:3: gpus = 1.5; legal is 0, a fraction of one GPU" in ran.err
    assert "scaling.queue_size = -1; legal is a whole number from 0" in ran.err


_SCRIPT = """
import forebay, sys

@forebay.function
def double(x):
    return 2 * x

@forebay.function
def unused(x):
    return x

def plain(text):
    return {"said": text}
"""


def test_a_script_is_run_with_its_functions_deployed_and_removed(
    mesh: ForebayUp, tmp_path: Path
) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        _SCRIPT + "if __name__ == '__main__':\n"
        "    print(sys.argv[1:], list(double.map(range(3))))\n    sys.exit(7)\n"
    )
    ran = mesh.forebay("run", script, "--flag", "a")
    assert (ran.code, ran.out) == (7, "['--flag', 'a'] [0, 2, 4]\n"), ran.err
    assert "double created" in ran.err
    assert "double deleted" in ran.err
    assert mesh.forebay("status", "double").code == 3

    assert mesh.forebay("run", "--keep", f"{script}:double", "4", '"a"').ok().out == '8\n"aa"\n'
    assert json.loads(mesh.forebay("run", f"{script}:plain", "x").ok().out) == {"said": "x"}
    script.write_text(_SCRIPT + "def main(x):\n    return double.map([int(x), None])\n")
    failed = mesh.forebay("run", script, "5")
    assert (failed.code, failed.out) == (1, "10\n")
    assert "return 2 * x" in failed.err
    # It was there before this run, so it stays.
    assert mesh.forebay("status", "double").code == 0
    mesh.forebay("delete", "double").ok()


def test_a_script_whose_function_cannot_start_ends(mesh: ForebayUp, tmp_path: Path) -> None:
    (tmp_path / "it.py").write_text(
        textwrap.dedent(
            """
            import forebay
            @forebay.function
            class Bad:
                def on_start(self): raise OSError("no weights")
                def __call__(self, x): return x
            def main(): return Bad.map(range(3))
            """
        )
    )
    ran = mesh.forebay("run", tmp_path / "it.py", timeout_s=150)
    assert ran.code == 1
    assert "bad cannot start: " in ran.err
    assert "OSError: no weights" in ran.err
    assert "bad deleted" in ran.err
