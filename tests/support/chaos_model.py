"""A model that does what a request tells it to: answer, wait, raise, hang, or kill its process."""

import json
from pathlib import Path
from typing import Any

_MODEL = """\
import os
import signal
import time

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        word = pb_utils.get_input_tensor_by_name(request, "DO").as_numpy().reshape(-1)[0]
        verb, _, argument = word.decode().partition(":")
        if verb == "wait":
            time.sleep(float(argument))
        elif verb == "raise":
            raise ValueError("the model was told to raise" + argument * 1000)
        elif verb == "busy":
            error = pb_utils.TritonError("the database is down", pb_utils.TritonError.UNAVAILABLE)
            return pb_utils.InferenceResponse(error=error)
        elif verb == "hang":
            time.sleep(3600)
        elif verb == "exit":
            os._exit(3)
        elif verb == "kill":
            os.kill(os.getppid(), signal.SIGKILL)
            time.sleep(3600)
        elif verb == "big":
            word = b"x" * int(argument)
        said = np.array([word], dtype=np.object_)
        return pb_utils.InferenceResponse([pb_utils.Tensor("SAID", said)])
"""

_CONFIG = """\
backend: "python"
input [ { name: "DO" data_type: TYPE_STRING dims: [ 1 ] } ]
output [ { name: "SAID" data_type: TYPE_STRING dims: [ 1 ] } ]
"""


def write_chaos(directory: Path, name: str = "chaos", model: str = _MODEL, **keys: Any) -> Path:
    """Writes a deployment of the model; returns the deployment file.

    Args:
        directory: made if it is not there.
        name: of the deployment.
        model: source of another model, if wanted.
        keys: further keys of the deployment file.
    """
    (directory / "model" / "1").mkdir(parents=True, exist_ok=True)
    (directory / "model" / "1" / "model.py").write_text(model)
    (directory / "model" / "config.pbtxt").write_text(_CONFIG)
    file = directory / "deployment.yaml"
    # JSON is YAML.
    file.write_text(json.dumps({"name": name, "model": "model", **keys}))
    return file
