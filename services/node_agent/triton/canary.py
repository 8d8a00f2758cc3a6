"""Pure: the inference a replica must pass before it takes requests.

Triton alone says ready after a sticky CUDA error; an inference tells.
"""

from services.wire.triton_stubs import model_config_pb2
from services.wire.triton_stubs import service_pb2 as triton

_BYTES_PER_ELEMENT = {
    "BOOL": 1, "UINT8": 1, "UINT16": 2, "UINT32": 4, "UINT64": 8, "INT8": 1, "INT16": 2,
    "INT32": 4, "INT64": 8, "FP16": 2, "FP32": 4, "FP64": 8, "BF16": 2,
}  # fmt: skip
_EMPTY_STRING = b"\0\0\0\0"


class UnknownTypeError(ValueError):
    """The model has an input of a type that has no zero."""


def zeros_request(model: str, config: model_config_pb2.ModelConfig) -> bytes:
    """A serialised request of zeros and empty strings, every variable dimension 1.

    Args:
        model: name of the model.
        config: its completed configuration.

    Raises:
        UnknownTypeError: if an input's type is not known.
    """
    request = triton.ModelInferRequest(model_name=model)
    for model_input in config.input:
        if model_input.optional:
            continue
        shape = [abs(size) for size in model_input.dims]
        if config.max_batch_size > 0:
            shape.insert(0, 1)
        datatype = _datatype(model_input)
        request.inputs.add(name=model_input.name, datatype=datatype, shape=shape)
        count = 1
        for size in shape:
            count *= size
        element = _EMPTY_STRING if datatype == "BYTES" else bytes(_BYTES_PER_ELEMENT[datatype])
        request.raw_input_contents.append(element * count)
    serialized: bytes = request.SerializeToString()
    return serialized


def _datatype(model_input: model_config_pb2.ModelInput) -> str:
    name: str = model_config_pb2.DataType.Name(model_input.data_type).removeprefix("TYPE_")
    if name == "STRING":
        return "BYTES"
    if name not in _BYTES_PER_ELEMENT:
        raise UnknownTypeError(f"input {model_input.name} has the type {name}, which has no zero")
    return name
