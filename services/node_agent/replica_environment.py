"""Pure: the environment variables that an assignment gives to its Triton."""

from collections.abc import Iterable

from forebay.v1.autoscaler_pb2 import Assignment
from services.node_agent.models import volumes
from services.node_agent.models.volumes import Mount
from services.node_agent.simulated_gpus import is_simulated

THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "TF_NUM_INTRAOP_THREADS",
    "RAYON_NUM_THREADS",
)
"""What the libraries under models read at their start.

Each of them would otherwise make a thread per CPU of the machine, in every replica: on a machine
with 64 CPUs and 8 replicas, 512 threads that wait for each other.
"""

CPUS_VARIABLE = "FOREBAY_CPUS"


def variables(assignment: Assignment, mounts: Iterable[Mount] = ()) -> dict[str, str]:
    """What a replica's Triton and its model find in their environment.

    Thread counts are the CPUs declared, rounded down, at least 1; 1 if none are declared. Any
    variable of the deployment's own wins over them. FOREBAY_CPUS tells the model's code what was
    declared, for what is set by calls only, such as the threads of ONNX Runtime.

    Args:
        assignment: of the replica.
        mounts: the volumes that it sees; FOREBAY_VOLUME_{NAME} is the path of each.
    """
    cpus = assignment.resources.cpus or 1.0
    threads = str(max(1, int(cpus)))
    return {
        **dict.fromkeys(THREAD_VARIABLES, threads),
        **assignment.environment,
        CPUS_VARIABLE: f"{cpus:g}",
        **volumes.variables(mounts),
    }


def visible_gpus(assignment: Assignment) -> tuple[str, ...]:
    """UUIDs of the GPUs that its Triton may see; none for simulated ones, which CUDA lacks."""
    return tuple(uuid for uuid in assignment.gpu_uuids if not is_simulated(uuid))


def runs_on_simulated_gpus(assignment: Assignment) -> bool:
    """Whether a GPU it was given is simulated."""
    return any(map(is_simulated, assignment.gpu_uuids))
