"""What Triton loads: hands items to the runner beside it and its outcomes to Triton.

ITEM and RESULT are BYTES of shape [items, 1], encoded as `forebay_runner.codec` says. A request with
one item that fails gets Triton's error; one with several gets an envelope for each.
"""  # noqa: E501

# Triton adds the names of pb_utils after it has imported this file.
from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

_HERE = Path(__file__).resolve().parent
LIMIT_PARAMETER = "forebay_attempt_timeout_ms"


class TritonPythonModel:
    """What Triton calls."""

    def initialize(self, args: dict[str, str]) -> None:
        """Imports the user's code and runs its `on_start`, once in each worker process."""
        # What the user prints shall be in the log when it is printed.
        sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
        sys.path.insert(0, str(_HERE))
        self._runner: Any = importlib.import_module("forebay_runner.worker")
        self._codec: Any = importlib.import_module("forebay_runner.codec")
        try:
            self._worker = self._runner.load(_HERE)
        except self._runner.StartError as error:
            # Triton's log keeps one line of it.
            raise pb_utils.TritonModelException(str(error)) from None

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answers every request."""
        read = [self._read(request) for request in requests]
        return [self._response(outcomes) for outcomes in self._worker.answer(read)]

    def _read(self, request: Any) -> Any:
        items = pb_utils.get_input_tensor_by_name(request, "ITEM").as_numpy().ravel().tolist()
        parameters = request.parameters()
        limit_ms = json.loads(parameters).get(LIMIT_PARAMETER) if parameters else None
        return self._runner.Request(items, None if limit_ms is None else int(limit_ms) / 1000)

    def _response(self, outcomes: list[Any]) -> Any:
        if len(outcomes) == 1 and not isinstance(outcomes[0], bytes):
            code = pb_utils.TritonError.INTERNAL
            return pb_utils.InferenceResponse(error=pb_utils.TritonError(outcomes[0].text, code))
        results = np.empty((len(outcomes), 1), np.object_)
        results[:, 0] = [
            outcome if isinstance(outcome, bytes) else self._codec.encode(outcome.envelope)
            for outcome in outcomes
        ]
        return pb_utils.InferenceResponse([pb_utils.Tensor("RESULT", results)])
