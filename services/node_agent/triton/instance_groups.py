"""Pure: how many instances of a model one Triton runs, and on what.

`workers` of a deployment sets the count of every instance group that Triton places on CPUs or GPUs.
A group of KIND_MODEL places itself, as vLLM's does, and stays as it is. A model without groups gets
one, whose kind Triton chooses as it would have.
"""

from services.wire.triton_stubs import model_config_pb2

_KIND_CPU = model_config_pb2.ModelInstanceGroup.KIND_CPU
_KIND_GPU = model_config_pb2.ModelInstanceGroup.KIND_GPU
_PLACED_BY_TRITON = (model_config_pb2.ModelInstanceGroup.KIND_AUTO, _KIND_CPU, _KIND_GPU)

UNBOUNDED = 1 << 30
"""As many as come."""


def with_workers(
    config: model_config_pb2.ModelConfig, workers: int
) -> model_config_pb2.ModelConfig:
    """A copy of a model's configuration with so many instances.

    A KIND_GPU group has that many on each GPU that the replica sees, as Triton counts.

    Args:
        config: the configuration the model came with.
        workers: 1 to 64; 0 leaves the configuration as it is.
    """
    made = _copy(config)
    if not workers or made.HasField("ensemble_scheduling"):
        return made
    if not made.instance_group:
        made.instance_group.add()
    for group in made.instance_group:
        if group.kind in _PLACED_BY_TRITON:
            group.count = workers
    return made


def without_gpus(config: model_config_pb2.ModelConfig) -> model_config_pb2.ModelConfig:
    """A copy of a model's configuration that runs on a machine whose GPUs are simulated.

    Triton refuses to load a KIND_GPU group where there is no GPU.
    """
    made = _copy(config)
    for group in made.instance_group:
        if group.kind == _KIND_GPU:
            group.kind = _KIND_CPU
            group.ClearField("gpus")
    return made


def at_work_at_once(config: model_config_pb2.ModelConfig) -> int:
    """How many inferences the model of one Triton works on at once, not counting batches.

    Args:
        config: completed, as Triton gives it for a model it has loaded.

    Returns:
        Its instances; UNBOUNDED for an ensemble, and for a model that places itself.
    """
    groups = config.instance_group
    if config.HasField("ensemble_scheduling") or any(
        group.kind not in _PLACED_BY_TRITON for group in groups
    ):
        return UNBOUNDED
    count: int = sum(group.count * max(1, len(group.gpus)) for group in groups)
    return max(1, count)


def _copy(config: model_config_pb2.ModelConfig) -> model_config_pb2.ModelConfig:
    made = model_config_pb2.ModelConfig()
    made.CopyFrom(config)
    return made
