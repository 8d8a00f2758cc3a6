"""Functions as model directories: which files, the same bytes each time, and that they run."""

import importlib.util
import io
import json
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import forebay
from forebay.functions.errors import FunctionDefinitionError
from forebay.functions.function import Function
from forebay.functions.upload import packed
from services.wire import model_archive

_RUN = """\
import json, pathlib, sys
version = pathlib.Path(sys.argv[1])
sys.path.insert(0, str(version))
from forebay_runner import codec, worker
try:
    loaded = worker.load(version)
except worker.StartError as error:
    print(json.dumps({"start": str(error)}))
    sys.exit()
items = [codec.encode([[arg], {}]) for arg in json.loads(sys.argv[2])]
answers = loaded.answer([worker.Request(items)])[0]
said = [codec.decode(a)["ok"] if isinstance(a, bytes) else a.text for a in answers]
print(json.dumps(said))
"""


class Project:
    """A directory of source files, from which functions are imported."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._names: list[str] = []

    def write(self, **files: str) -> None:
        """Writes files; `__` in a name stands for `/`."""
        for name, text in files.items():
            path = self.root / (name.replace("__", "/") + ".py")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(textwrap.dedent(text))

    def load(self, name: str = "mine") -> ModuleType:
        """Imports a file as Python would, were the project on its path."""
        path = self.root / (name.replace(".", "/") + ".py")
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec
        assert spec.loader
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        self._names.append(name)
        spec.loader.exec_module(module)
        return module

    def forget(self) -> None:
        """Forgets what was imported from here."""
        for name, module in list(sys.modules.items()):
            if str(getattr(module, "__file__", None)).startswith(str(self.root)):
                del sys.modules[name]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    made = Project(tmp_path / "project")
    made.root.mkdir()
    monkeypatch.syspath_prepend(str(made.root))
    yield made
    made.forget()


def files_of(function: Function) -> set[str]:
    with packed(function) as (_, directory):
        code = directory / "1" / "code"
        return {path.relative_to(code).as_posix() for path in code.rglob("*") if path.is_file()}


def digest_of(function: Function) -> str:
    with packed(function) as (_, directory):
        return model_archive.pack(directory, io.BytesIO())


def run(function: Function, *items: Any) -> Any:
    """What the packed function says in a process that knows nothing of the project."""
    with packed(function) as (_, directory):
        done = subprocess.run(
            [sys.executable, "-c", _RUN, str(directory / "1"), json.dumps(items)],
            capture_output=True,
            text=True,
            timeout=60,
            cwd=directory,
        )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_the_main_part_of_a_file_does_not_run(project: Project) -> None:
    project.write(
        mine="""
        import forebay
        @forebay.function
        def double(x): return 2 * x
        if __name__ == "__main__":
            raise SystemExit("ran")
        """
    )
    assert run(project.load().double, 4) == [8]


def test_on_start_runs_once_before_the_first_item(project: Project) -> None:
    project.write(
        mine="""
        import forebay
        starts = []
        @forebay.function
        class Count:
            def on_start(self): starts.append(self)
            def __call__(self, x): return [len(starts), x]
        @forebay.function(on_start=lambda: starts.append(1), requirements=["six"])
        def count(x): return [len(starts), x]
        """
    )
    module = project.load()
    assert run(module.Count, 1, 2) == [[1, 1], [1, 2]]
    assert run(module.count, 1, 2) == [[1, 1], [1, 2]]


@pytest.mark.parametrize(
    ("requirements", "added"),
    [
        (["six"], True),
        (["msgpack-numpy==0.4.8"], True),
        (["msgpack"], False),
        (["MsgPack >= 1.1"], False),
        (["msgpack==1.1.0"], False),
    ],
)
def test_msgpack_is_required_unless_it_is_named(
    project: Project, requirements: list[str], added: bool
) -> None:
    project.write(
        mine=f"import forebay\n@forebay.function(requirements={requirements})\ndef f(x): ...\n"
    )
    with packed(project.load().f) as (_, directory):
        lines = (directory / "requirements.txt").read_text().splitlines()
    assert lines == [*requirements, *(["msgpack==1.2.4"] if added else [])]


def test_imports_beside_the_file_come_along_and_nothing_else(project: Project) -> None:
    project.write(
        mine="""
        import json, numpy, forebay
        from words import shout
        from kinds import flat
        @forebay.function
        def say(x):
            from lazily import late
            return shout(x) + flat.SIGN + late()
        """,
        words="import deeper\ndef shout(x): return x.upper() + deeper.MARK",
        deeper="import words\nMARK = '!'",
        lazily="def late(): return '.'",
        kinds__flat="from .more import SIGN",
        kinds__more="SIGN = '?'",
        unused="raise SystemExit",
        json__extra="",
    )
    (project.root / "kinds" / "__init__.py").write_text("")
    say = project.load().say
    assert files_of(say) == {
        "mine.py", "words.py", "deeper.py", "lazily.py",
        "kinds/__init__.py", "kinds/flat.py", "kinds/more.py",
    }  # fmt: skip
    assert run(say, "ab") == ["AB!?."]


def test_a_function_in_a_package_brings_its_packages(project: Project) -> None:
    project.write(
        app__jobs__mine="""
        import forebay
        from ..shared import VALUE
        @forebay.function
        def add(x): return x + VALUE
        """,
        app__shared="VALUE = 5",
    )
    for package in ("app", "app/jobs"):
        (project.root / package / "__init__.py").write_text("")
    add = importlib.import_module("app.jobs.mine").add
    assert files_of(add) == {
        "app/__init__.py", "app/jobs/__init__.py", "app/jobs/mine.py", "app/shared.py"
    }  # fmt: skip
    assert run(add, 1) == [6]


def test_the_same_source_is_the_same_model_and_another_is_not(project: Project) -> None:
    text = "import forebay\n@forebay.function\ndef f(x): return x"
    project.write(mine=text)
    first = digest_of(project.load().f)
    assert digest_of(project.load().f) == first
    (project.root / "mine.py").touch()
    (project.root / "other.py").write_text("")
    assert digest_of(project.load().f) == first
    project.write(mine=text + " + 1")
    assert digest_of(project.load().f) != first


def test_included_files_and_modules_are_beside_the_code(project: Project) -> None:
    project.write(
        mine="""
        import importlib, pathlib, forebay
        HERE = pathlib.Path(__file__).parent
        @forebay.function(include=["labels.txt", "data", "plugin"])
        def read(x):
            texts = [(HERE / name).read_text() for name in ("labels.txt", "data/a/b.txt")]
            return texts + [importlib.import_module("plugin").NAME]
        """,
        plugin="import deeper\nNAME = deeper.NAME",
        deeper="NAME = 'plugin'",
    )
    (project.root / "labels.txt").write_text("one")
    (project.root / "data" / "a").mkdir(parents=True)
    (project.root / "data" / "a" / "b.txt").write_text("two")
    assert run(project.load().read, 0) == [["one", "two", "plugin"]]


def test_what_a_replica_cannot_do_says_so(project: Project) -> None:
    project.write(
        mine="""
        import forebay
        from forebay import Client, QueueDepth
        schedule = forebay.schedule if hasattr(forebay, "schedule") else lambda **_: lambda f: f
        @schedule(when="0 2 * * *")
        @forebay.function(scaling=QueueDepth(max_replicas=2))
        def first(x): return x + 1
        @forebay.function
        def second(x):
            try:
                first.remote(x)
            except RuntimeError as error:
                return [first(x), str(error)]
        """
    )
    ((value, said),) = run(project.load().second, 1)
    assert value == 2
    assert "cannot be used inside a replica" in said


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import forebay\n@forebay.function\nclass run:\n  def on_start(self): 1 / 0\n"
         "  def __call__(self): ...\n", "ZeroDivisionError: division by zero"),
        ("import forebay, sys\nif 'forebay_runner' in sys.modules:\n  import not_there_xyz\n"
         "@forebay.function\ndef run(x): ...\n",
         "No module named 'not_there_xyz' (add what provides it"),
        ("import forebay, sys\nif 'forebay_runner' in sys.modules: sys.exit(3)\n"
         "@forebay.function\ndef run(x): ...\n", "SystemExit: 3"),
    ],
)  # fmt: skip
def test_what_cannot_start_says_why_with_the_users_lines_only(
    project: Project, code: str, said: str
) -> None:
    project.write(mine=code)
    text = run(project.load().run)["start"]
    assert said in text
    assert 'File "mine.py", line ' in text
    assert "shim" not in text
    assert "importlib" not in text


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("def make():\n  @forebay.function\n  def f(x): ...\n  return f\nf = make()",
         "defined inside a function or class"),
        ("f = forebay.function(lambda x: x)", "a lambda cannot become a deployment"),
        ("if __name__ != '__main__':\n  @forebay.function\n  def f(x): ...",
         "does not define f at its top level"),
        ("@forebay.schedule(when='* * * * *')\n@forebay.function\ndef f(x): ...",
         r"mine\.py:\d: @forebay\.schedule calls f with argument = None.*missing a required"),
        ("@forebay.schedule(when='* * * * *', argument={1})\n@forebay.function\ndef f(x): ...",
         "set cannot be sent"),
        ("@forebay.function(include=['nothing.txt'])\ndef f(x): ...", "neither a file beside"),
        ("@forebay.function(include=['numpy'])\ndef f(x): ...", "belong into requirements"),
        ("@forebay.function(include=['..'])\ndef f(x): ...", "is outside"),
        ("@forebay.function\ndef f(x):\n  import broken", "broken.py:2: "),
    ],
)  # fmt: skip
def test_what_cannot_be_packed_says_what_to_do(project: Project, code: str, said: str) -> None:
    project.write(mine=f"import forebay\n{code}\n", broken="x = 1\nx = = 2\n")
    function = project.load().f
    with pytest.raises(FunctionDefinitionError, match=said):
        files_of(function)


def test_a_function_without_a_file_is_refused() -> None:
    names: dict[str, Any] = {"forebay": forebay, "__name__": "typed"}
    exec("@forebay.function\ndef f(x): return x\n", names)
    with pytest.raises(FunctionDefinitionError, match="has no source file"):
        files_of(names["f"])
