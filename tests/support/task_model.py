"""A model for tasks: it does as it is told, and remembers in files when its process dies."""

from pathlib import Path

_MODEL = """\
import os
import signal
import time
from pathlib import Path

import numpy as np
import triton_python_backend_utils as pb_utils

NOTES = Path("{notes}")


class TritonPythonModel:
    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        word = pb_utils.get_input_tensor_by_name(request, "DO").as_numpy().reshape(-1)[0]
        verb, _, argument = word.decode().partition(":")
        with (NOTES / "seen").open("a") as seen:
            seen.write(word.decode() + "\\n")
        if verb == "wait":
            time.sleep(float(argument))
        elif verb == "raise":
            raise ValueError(argument)
        elif verb == "flaky":
            # flaky:<name>:<times it fails>
            name, _, times = argument.partition(":")
            with (NOTES / name).open("a") as tries:
                tries.write("x")
            if (NOTES / name).stat().st_size <= int(times):
                raise ValueError("not yet")
        elif verb in ("hold", "hold-raise"):
            while not (NOTES / argument).exists():
                time.sleep(0.01)
            if verb == "hold-raise":
                raise ValueError(argument)
        elif verb == "busy":
            error = pb_utils.TritonError("no room", pb_utils.TritonError.UNAVAILABLE)
            if not (NOTES / argument).exists():
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


class Notes:
    """What the model has been asked, and the words it waits for."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir()
        self.directory = directory

    @property
    def model(self) -> str:
        """Source of the model."""
        return _MODEL.replace("{notes}", str(self.directory))

    @property
    def seen(self) -> list[str]:
        """Every word the model was given, in order."""
        file = self.directory / "seen"
        return file.read_text().splitlines() if file.exists() else []

    def let_go(self, name: str) -> None:
        """Lets go of what holds on until then."""
        (self.directory / name).touch()
