"""Which files a function consists of: the one that defines it and what that imports beside it.

Code travels by source. The defining file is taken whole, as a module; its `if __name__ ==
"__main__":` part does not run in a replica. From there imports are followed, in the text and not by
running anything, as far as they lead to files of the same project directory: not to installed
packages, which belong into `requirements`.
"""

import ast
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from forebay.functions.errors import FunctionDefinitionError
from services.wire.model_archive import SKIPPED

MAX_FILES = 2000
MAX_BYTES = 1 << 30
_INSTALLED = frozenset({"site-packages", "dist-packages"})

Include = str | Path | ModuleType


@dataclass(frozen=True, slots=True)
class Source:
    """Where a function is defined.

    Attributes:
        file: the file.
        root: directory from which its modules are imported.
        module: dotted name of the file as a module.
        name: name of the function in it.
        line: its first line.
    """

    file: Path
    root: Path
    module: str
    name: str
    line: int


def locate(target: Callable[..., Any]) -> Source:
    """Where a function or class is defined.

    Raises:
        FunctionDefinitionError: if it is not at the top level of a Python file.
    """
    name = target.__qualname__
    if name == "<lambda>":
        raise FunctionDefinitionError(
            "a lambda cannot become a deployment, as it has no name; write a function with def"
        )
    if "." in name:
        raise FunctionDefinitionError(
            f"{name} is defined inside a function or class: a deployment is made of source text, "
            "which does not hold the variables around it. Move it to the top level of its file"
        )
    module = sys.modules.get(target.__module__)
    found = getattr(module, "__file__", None)
    # A notebook and the interactive interpreter have a __main__ without a file.
    if module is None or not found or Path(found).suffix != ".py" or not Path(found).is_file():
        raise FunctionDefinitionError(
            f"{name} has no source file (it is defined in {target.__module__}, perhaps in an "
            "interactive session): a deployment is made of source text. Write it into a .py file "
            "and import it from there"
        )
    file = Path(found).resolve()
    if _INSTALLED & set(file.parts):
        raise FunctionDefinitionError(
            f"{name} is defined in an installed package, {file}. Write a file of your own that "
            "imports it, and name the package in requirements"
        )
    root, dotted = _root_of(file, module)
    _check_top_level(file, name)
    return Source(file, root, dotted, name, _line(target))


def collect(source: Source, include: Sequence[Include] = ()) -> dict[str, Path]:
    """The files of a function, by their paths below the root, sorted.

    Raises:
        FunctionDefinitionError: if a file has a syntax error, what is to be included is not there,
            or there are more than 2000 files or 1 GiB.
    """
    files: dict[str, Path] = {}
    waiting = [source.file, *_packages_of(source.file, source.root)]
    for wanted in include:
        root, found = _included(wanted, source)
        for path in found:
            if path.suffix == ".py" and root == source.root:
                waiting.append(path)
            else:
                _add(files, path, root)
    while waiting:
        path = waiting.pop()
        if not _add(files, path, source.root):
            continue
        for dotted in _imports(path, source.root):
            waiting += _module_files(dotted, source.root)
    total_bytes = sum(path.stat().st_size for path in files.values())
    if total_bytes > MAX_BYTES:
        raise FunctionDefinitionError(
            f"{source.name} consists of {total_bytes} bytes; at most {MAX_BYTES} are taken. Put "
            "large files into a volume"
        )
    return dict(sorted(files.items()))


def parse(path: Path) -> ast.Module:
    """The syntax tree of a file, which has been compiled, so that it has no syntax error.

    Raises:
        FunctionDefinitionError: if it has one, or is not text.
    """
    try:
        text = path.read_bytes()
        compile(text, str(path), "exec", dont_inherit=True)
        return ast.parse(text, str(path))
    except SyntaxError as error:
        raise FunctionDefinitionError(
            f"{path}:{error.lineno}: {error.msg}: {(error.text or '').strip()}"
        ) from None
    except (OSError, ValueError) as error:
        raise FunctionDefinitionError(f"cannot read {path}: {error}") from None


def _root_of(file: Path, module: ModuleType) -> tuple[Path, str]:
    """The directory a file is imported from, and its name as a module."""
    spec = getattr(module, "__spec__", None)
    name = getattr(spec, "name", None) or (
        module.__name__ if module.__name__ != "__main__" else None
    )
    parts = file.with_suffix("").parts
    if parts[-1] == "__init__":
        parts = parts[:-1]
    if name:
        wanted = tuple(name.split("."))
        if parts[-len(wanted) :] == wanted:
            return Path(*parts[: -len(wanted)]), name
    root = file.parent
    while (root / "__init__.py").is_file():
        root = root.parent
    return root, ".".join(Path(*parts).relative_to(root).parts)


def _line(target: Callable[..., Any]) -> int:
    try:
        return inspect.getsourcelines(target)[1]
    except (OSError, TypeError):
        return 1


def _check_top_level(file: Path, name: str) -> None:
    """Refuses what is not defined when the file is imported."""
    if name in _names(parse(file).body):
        return
    raise FunctionDefinitionError(
        f"{file} does not define {name} at its top level when it is imported; move it out of `if "
        '__name__ == "__main__":` and out of other functions'
    )


def _names(body: list[ast.stmt]) -> Iterator[str]:
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.If) and "__name__" in ast.unparse(node.test):
            yield from _names(node.orelse)
        elif isinstance(node, ast.If | ast.Try | ast.With):
            for part in ("body", "orelse", "finalbody"):
                yield from _names(getattr(node, part, []))
            for handler in getattr(node, "handlers", []):
                yield from _names(handler.body)


def _imports(path: Path, root: Path) -> Iterator[str]:
    """Dotted names of what a file may import, wherever in the file."""
    package = list(path.relative_to(root).with_suffix("").parts[:-1])
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = [*base, *(node.module.split(".") if node.module else [])]
            if module:
                yield ".".join(module)
            for alias in node.names:
                yield ".".join([*module, alias.name])


def _module_files(dotted: str, root: Path) -> list[Path]:
    """Files that importing a module runs, as far as they are below a root: it and its packages."""
    parts = dotted.split(".")
    # What a replica has under this name is the shim.
    if parts[0] == "forebay":
        return []
    found = []
    directory = root
    for part in parts:
        file, directory = directory / f"{part}.py", directory / part
        if (directory / "__init__.py").is_file():
            found.append(directory / "__init__.py")
        elif file.is_file():
            found.append(file)
            break
    return [path for path in found if not _INSTALLED & set(path.parts)]


def _packages_of(file: Path, root: Path) -> list[Path]:
    """The `__init__.py` of every package a file is in."""
    parents = [parent for parent in file.parents if parent.is_relative_to(root) and parent != root]
    return [init for parent in parents if (init := parent / "__init__.py").is_file()]


def _included(wanted: Include, source: Source) -> tuple[Path, list[Path]]:
    """The root and the files of something to be included."""
    if isinstance(wanted, ModuleType):
        return _included_module(wanted.__name__, source)
    path = (source.file.parent / wanted).resolve()
    if path.exists():
        if not path.is_relative_to(source.root):
            raise FunctionDefinitionError(
                f"include names {path}, which is outside {source.root}, the directory that "
                f"{source.name}'s modules are imported from; move or copy it there"
            )
        return source.root, list(_walk(path))
    if isinstance(wanted, str) and all(part.isidentifier() for part in wanted.split(".")):
        return _included_module(wanted, source)
    raise FunctionDefinitionError(
        f"include names {str(wanted)!r}, but there is no {path}; legal are files and directories "
        f"by their path from {source.file.parent}, and names of modules"
    )


def _included_module(dotted: str, source: Source) -> tuple[Path, list[Path]]:
    top = dotted.partition(".")[0]
    if local := _module_files(dotted, source.root):
        leaf = local[-1]
        whole = list(_walk(leaf.parent)) if leaf.name == "__init__.py" else []
        return source.root, [*local, *whole]
    spec = importlib.util.find_spec(top)
    origin = Path(spec.origin).resolve() if spec and spec.has_location and spec.origin else None
    if origin is None or _INSTALLED & set(origin.parts) or origin.suffix != ".py":
        raise FunctionDefinitionError(
            f"include names {dotted!r}, which is neither a file beside {source.file} nor a module "
            "with source of your own; installed packages belong into requirements"
        )
    if origin.name == "__init__.py":
        return origin.parent.parent, list(_walk(origin.parent))
    return origin.parent, [origin]


def _walk(path: Path) -> Iterator[Path]:
    if not path.is_dir():
        yield path
        return
    for child in sorted(path.iterdir()):
        if child.name not in SKIPPED:
            yield from _walk(child)


def _add(files: dict[str, Path], path: Path, root: Path) -> bool:
    """Adds a file; False if it was there."""
    name = path.relative_to(root).as_posix()
    if name in files:
        return False
    if len(files) >= MAX_FILES:
        raise FunctionDefinitionError(
            f"a function may consist of {MAX_FILES} files; {path} is one more. Include less, or "
            "put data into a volume"
        )
    files[name] = path
    return True
