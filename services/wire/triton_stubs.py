"""Triton's stubs of the package `inference`, without the rest of tritonclient.

Importing `tritonclient.grpc` brings numpy and a client that no service uses: 17 MB in each process.
So the package is imported by its path only, and its name is left free for whoever wants all of it;
the stubs are the same modules either way, since two definitions of `inference` in one process
collide.
"""

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

_PACKAGE = "tritonclient.grpc"
_STUBS = ("model_config_pb2", "service_pb2", "service_pb2_grpc")


def _load() -> list[Any]:
    if _PACKAGE in sys.modules:
        return [importlib.import_module(f"{_PACKAGE}.{stub}") for stub in _STUBS]
    spec = importlib.util.find_spec("tritonclient")
    assert spec is not None, "a dependency of this package"
    assert spec.submodule_search_locations is not None
    stand_in = ModuleType(_PACKAGE)
    stand_in.__path__ = [str(Path(spec.submodule_search_locations[0]) / "grpc")]
    sys.modules[_PACKAGE] = stand_in
    try:
        return [importlib.import_module(f"{_PACKAGE}.{stub}") for stub in _STUBS]
    finally:
        del sys.modules[_PACKAGE]


if TYPE_CHECKING:
    from tritonclient.grpc import model_config_pb2, service_pb2, service_pb2_grpc
else:
    model_config_pb2, service_pb2, service_pb2_grpc = _load()

__all__ = ["model_config_pb2", "service_pb2", "service_pb2_grpc"]
