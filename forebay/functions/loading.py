"""Finds functions in a file that a command line names."""

import importlib
import importlib.util
import os
import sys
import traceback
from pathlib import Path
from types import ModuleType

from forebay.functions.errors import FunctionDefinitionError
from forebay.functions.function import Function
from forebay.functions.sources import parse

_FOREBAY = f"{Path(__file__).parents[1]}{os.sep}"


def is_function(text: str) -> bool:
    """Whether an argument names a Python file, or a function in one as `file.py:name`."""
    return text.rpartition(":")[0].endswith(".py") or text.endswith(".py")


def split(text: str) -> tuple[Path, str]:
    """The file of `file.py:name`, and the name; empty if there is none."""
    file, colon, name = text.rpartition(":")
    return (Path(file), name) if colon and file.endswith(".py") else (Path(text), "")


def load(file: Path) -> ModuleType:
    """Imports a file as a module, so that its `__main__` part does not run.

    Its directory, or that of the package it is in, becomes the first on the path of modules.

    Raises:
        FunctionDefinitionError: if there is no such file or it cannot be imported.
    """
    if not file.is_file():
        raise FunctionDefinitionError(f"there is no file {file}")
    file = file.resolve()
    parse(file)
    root = file.parent
    while (root / "__init__.py").is_file():
        root = root.parent
    name = ".".join(file.with_suffix("").relative_to(root).parts).removesuffix(".__init__")
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None, "a .py file"
    assert spec.loader is not None, "a .py file"
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise FunctionDefinitionError(_why_not(file, error)) from error
    return module


def functions_in(module: ModuleType) -> dict[str, Function]:
    """The functions a module has, by their names in it; one that has two names once."""
    found: dict[str, Function] = {}
    for name, value in vars(module).items():
        if isinstance(value, Function) and all(value is not other for other in found.values()):
            found[name] = value
    return found


def function_of(text: str) -> Function:
    """The function that `file.py:name` names, or the only one of `file.py`.

    Raises:
        FunctionDefinitionError: if there is none, or more than one and no name.
    """
    file, name = split(text)
    found = functions_in(load(file))
    known = ", ".join(found) or "none"
    if name:
        if name not in found:
            raise FunctionDefinitionError(
                f"{file} has no function {name}; decorated with @forebay.function are: {known}"
            )
        return found[name]
    if len(found) != 1:
        raise FunctionDefinitionError(
            f"{file} has {len(found)} functions; say which, as {file}:name. Decorated with "
            f"@forebay.function are: {known}"
        )
    return next(iter(found.values()))


def _why_not(file: Path, error: BaseException) -> str:
    if isinstance(error, FunctionDefinitionError):
        return error.message
    frames = [
        frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename != __file__
    ]
    # Where forebay itself refuses something, the caller's line is the one to look at.
    own = [frame for frame in frames if not frame.filename.startswith(("<", _FOREBAY))]
    where = f"{own[-1].filename}:{own[-1].lineno}" if own else str(file)
    said = f"{file} cannot be imported: {type(error).__name__}: {error} ({where})"
    if isinstance(error, ModuleNotFoundError):
        said += (
            f". Install {error.name} here too, or import it inside the function or in on_start, "
            "which run in replicas only"
        )
    return said
