"""The `resources` and `environment` parts of a deployment file."""

from collections.abc import Iterator, Mapping

from pydantic import BaseModel, Field, field_validator

from forebay.deployment_yaml import Problem
from forebay.scaling_file import STRICT
from forebay.v1.deployment_pb2 import ReplicaResources
from services.wire import deployment_words as words

MAX_CUSTOM = 16
MAX_CUSTOM_AMOUNT = 1_000_000
MAX_ENVIRONMENT = 64

LEGAL = {
    "resources": "a mapping with gpus, gpu_memory_bytes, accelerator_type, cpus, memory_bytes, "
    "custom and workers",
    "resources.gpus": "0, a fraction of one GPU such as 0.5, or a whole number up to 64",
    "resources.gpu_memory_bytes": "a whole number of bytes, 0 or more",
    "resources.accelerator_type": words.LEGAL_ACCELERATOR_TYPE,
    "resources.cpus": "a number from 0 to 1024, in hundredths",
    "resources.memory_bytes": "a whole number of bytes, 0 or more",
    "resources.custom": f"a mapping of at most {MAX_CUSTOM} names to amounts, each above 0",
    "resources.custom.*": f"an amount above 0 up to {MAX_CUSTOM_AMOUNT}",
    "resources.workers": "a whole number from 0 to 64",
    "environment": f"a mapping of at most {MAX_ENVIRONMENT} names of variables to their values",
    "environment.*": f"{words.LEGAL_VALUE}; write numbers and true or false in quotes",
}


class Resources(BaseModel):
    """What one replica needs of its node."""

    model_config = STRICT

    gpus: float = Field(
        default=0.0,
        ge=0,
        le=64,
        description="GPUs: a whole number, or a fraction of one. 0 runs on a CPU slot.",
    )
    gpu_memory_bytes: int = Field(
        default=0, ge=0, description="GPU memory the model needs; 0 means not declared."
    )
    accelerator_type: str = Field(
        default="",
        max_length=words.MAX_ACCELERATOR_TYPE_CHARACTERS,
        description="Word that must be in the product name of the GPUs, such as L4, whatever the "
        "case. Empty: any GPU.",
    )
    cpus: float = Field(
        default=0.0,
        ge=0,
        le=1024,
        description="CPUs, in hundredths; also the number of threads of the model. 0 means not "
        "declared, and one thread.",
    )
    memory_bytes: int = Field(
        default=0, ge=0, description="Memory of the node that is needed; 0 means not declared."
    )
    custom: dict[str, float] = Field(
        default={},
        max_length=MAX_CUSTOM,
        description="Other resources by the names that nodes give them, with amounts above 0.",
    )
    workers: int = Field(
        default=0,
        ge=0,
        le=64,
        description="Instances of the model inside one replica. 0 leaves it to config.pbtxt.",
    )

    @field_validator("gpus")
    @classmethod
    def _whole_or_fraction(cls, value: float) -> float:
        if (value > 1 and value != int(value)) or 0 < value < 0.01:
            raise ValueError("neither a whole number nor a fraction of one GPU")
        return value

    @field_validator("cpus")
    @classmethod
    def _in_hundredths(cls, value: float) -> float:
        # 0.29 * 100 is 28.999999999999996.
        if abs(value * 100 - round(value * 100)) > 1e-6:
            raise ValueError("not in hundredths")
        return value

    def to_proto(self) -> ReplicaResources:
        """The resources as the autoscaler takes them."""
        return ReplicaResources(**self.model_dump())


def resource_problems(spec: Resources) -> Iterator[Problem]:
    """What is wrong with resources whose values are each of the right type."""
    product = spec.accelerator_type
    if product and not words.is_accelerator_type(product):
        legal = LEGAL["resources.accelerator_type"]
        yield Problem("resources.accelerator_type", f"= {product!r}; legal is {legal}")
    for key in ("accelerator_type", "gpu_memory_bytes"):
        if getattr(spec, key) and not spec.gpus:
            yield Problem(
                f"resources.{key}",
                f"= {getattr(spec, key)!r}, but gpus is 0; ask for gpus, or leave {key} out",
            )
    for name, amount in spec.custom.items():
        if not words.is_resource(name):
            sentence = f"cannot name a resource; legal is {words.LEGAL_RESOURCE}"
            yield Problem(f"resources.custom.{name}", sentence)
        elif not 0 < amount <= MAX_CUSTOM_AMOUNT:
            legal = LEGAL["resources.custom.*"]
            yield Problem(f"resources.custom.{name}", f"= {amount!r}; legal is {legal}")


def environment_problems(environment: Mapping[str, str]) -> Iterator[Problem]:
    """What is wrong with variables; their values are not shown, as they may be secrets."""
    for name, value in environment.items():
        key = f"environment.{name}"
        if not words.is_variable(name):
            yield Problem(key, f"cannot name a variable; legal is {words.LEGAL_VARIABLE}")
        elif words.is_reserved(name):
            yield Problem(
                key, f"is set by the node agent; leave it out. Reserved are {words.RESERVED}"
            )
        elif not words.is_variable_value(value):
            yield Problem(key, f"has {len(value)} characters; legal is {words.LEGAL_VALUE}")
