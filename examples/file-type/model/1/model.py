"""Tells what a file is from its bytes, with the ONNX model inside the `magika` package.

Input: CONTENT, BYTES [batch, 1], one file per row.
Output: LABEL and GROUP, BYTES [batch, 1]; SCORE, FP32 [batch, 1], from 0 to 1.
"""

# Triton adds the names of pb_utils after it has imported this file.
from __future__ import annotations

import io
from pathlib import Path

import magika
import numpy as np
import onnxruntime
import triton_python_backend_utils as pb_utils
from magika.types import MagikaResult, ModelFeatures, Seekable


class _Magika(magika.Magika):
    """Magika on one thread, classifying many contents in one run of the network.

    The package's public interface batches paths but not bytes, so this uses two of its private
    methods; requirements.txt pins the version that has them.
    """

    def _init_onnx_session(self) -> onnxruntime.InferenceSession:
        # A replica has one CPU slot: more threads would only take time from its neighbours.
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        return onnxruntime.InferenceSession(
            self._model_path, options, providers=["CPUExecutionProvider"]
        )

    def prepare(self, content: bytes) -> MagikaResult | ModelFeatures:
        """What a content is, if a rule tells (it is empty or very short), else its features."""
        result, features = self._get_result_or_features_from_seekable(Seekable(io.BytesIO(content)))
        return features if result is None else result

    def classify(self, prepared: list[MagikaResult | ModelFeatures]) -> list[MagikaResult]:
        """What each content is, in the same order, with one run of the network."""
        features = [
            (Path(str(index)), item)
            for index, item in enumerate(prepared)
            if isinstance(item, ModelFeatures)
        ]
        found = self._get_results_from_features(features)
        return [
            found[str(index)] if isinstance(item, ModelFeatures) else item
            for index, item in enumerate(prepared)
        ]


class TritonPythonModel:
    """What Triton calls."""

    def initialize(self, args: dict[str, str]) -> None:
        """Loads the network once per replica."""
        self._magika = _Magika()

    def execute(self, requests: list) -> list:
        """Answers several requests, each of one or more files, with one run of the network."""
        prepared: list[MagikaResult | ModelFeatures] = []
        # Per request: where its files are in `prepared`, or why it can't be answered.
        parts: list[slice | pb_utils.TritonError] = []
        for request in requests:
            rows = pb_utils.get_input_tensor_by_name(request, "CONTENT").as_numpy()
            start = len(prepared)
            try:
                prepared.extend([self._magika.prepare(content) for content in rows[:, 0]])
                parts.append(slice(start, len(prepared)))
            except (AssertionError, ValueError) as error:
                # One bad request must not fail those that share its batch.
                message = f"cannot read CONTENT: {error!r}"
                parts.append(pb_utils.TritonError(message, pb_utils.TritonError.INVALID_ARG))
        results = self._magika.classify(prepared)
        return [
            _response(results[part])
            if isinstance(part, slice)
            else pb_utils.InferenceResponse(error=part)
            for part in parts
        ]


def _response(results: list[MagikaResult]) -> pb_utils.InferenceResponse:
    predictions = [result.prediction for result in results]
    labels = [str(prediction.output.label).encode() for prediction in predictions]
    groups = [prediction.output.group.encode() for prediction in predictions]
    scores = [prediction.score for prediction in predictions]
    return pb_utils.InferenceResponse(
        [
            pb_utils.Tensor("LABEL", np.array(labels, np.object_).reshape(-1, 1)),
            pb_utils.Tensor("SCORE", np.array(scores, np.float32).reshape(-1, 1)),
            pb_utils.Tensor("GROUP", np.array(groups, np.object_).reshape(-1, 1)),
        ]
    )
