"""Turns sentences into embeddings on the CPU.

Input: TEXT, BYTES [batch, 1], one sentence per row, UTF-8.
Output: EMBEDDING, FP32 [batch, 384], each of length 1.
"""

# Triton adds the names of pb_utils after it has imported this file.
from __future__ import annotations

from pathlib import Path

import triton_python_backend_utils as pb_utils
from encoder import Encoder


class TritonPythonModel:
    """What Triton calls."""

    def initialize(self, args: dict[str, str]) -> None:
        """Loads the network once per replica."""
        self._encoder = Encoder(Path(__file__).parent / "weights")

    def execute(self, requests: list) -> list:
        """Answers several requests, each of one or more sentences, with one run."""
        sentences: list[str] = []
        # Per request: where its sentences are, or why it can't be answered.
        parts: list[slice | pb_utils.TritonError] = []
        for request in requests:
            rows = pb_utils.get_input_tensor_by_name(request, "TEXT").as_numpy()
            start = len(sentences)
            try:
                sentences.extend([row.decode() for row in rows[:, 0]])
                parts.append(slice(start, len(sentences)))
            except UnicodeDecodeError as error:
                # One bad request must not fail those that share its batch.
                message = f"TEXT is not UTF-8: {error.reason} at byte {error.start}"
                parts.append(pb_utils.TritonError(message, pb_utils.TritonError.INVALID_ARG))
        embeddings = self._encoder.encode(sentences) if sentences else []
        return [
            pb_utils.InferenceResponse([pb_utils.Tensor("EMBEDDING", embeddings[part])])
            if isinstance(part, slice)
            else pb_utils.InferenceResponse(error=part)
            for part in parts
        ]
