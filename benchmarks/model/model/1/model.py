"""The least a model can do with its input: look at it and say how large it is."""

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """Answers each request with the number of bytes it was given."""

    def execute(self, requests):
        """One response per request."""
        return [
            pb_utils.InferenceResponse([pb_utils.Tensor("SIZE", np.array([_size(request)]))])
            for request in requests
        ]


def _size(request):
    return pb_utils.get_input_tensor_by_name(request, "INPUT").as_numpy().size
