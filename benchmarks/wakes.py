"""Cold starts on a real mesh: how soon a request at zero is decided on, and what the mesh adds."""

import asyncio
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import grpc.aio
from rich.progress import Progress
from tritonclient.grpc import service_pb2

from forebay.local import triton_setup
from forebay.local.mesh import LocalMesh
from forebay.local.programs import MeshOptions
from forebay.v1.autoscaler_pb2 import WatchScaleDecisionsRequest
from forebay.v1.autoscaler_pb2_grpc import AutoscalerServiceStub
from forebay.v1.deployment_pb2 import CreateDeploymentRequest, Deployment
from forebay.v1.deployment_pb2_grpc import DeploymentServiceStub
from forebay.v1.model_pb2 import Model, UploadModelRequest
from forebay.v1.model_pb2_grpc import ModelServiceStub
from forebay.v1.node_pb2 import ListNodesRequest
from forebay.v1.node_pb2_grpc import NodeServiceStub
from forebay.v1.scaling_pb2 import ScaleDecision
from services.wire import model_archive

MODEL = Path(__file__).parent / "model" / "model"
METHOD = "/inference.GRPCInferenceService/ModelInfer"
ANY_PORT = "127.0.0.1:0"
CHUNK_BYTES = 256 * 1024
DECIDED_WITHIN_S = 10.0
COLD_START_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class Wakes:
    """What was measured.

    Attributes:
        to_decision_s: from the call's start to the decision's own time, of each wake, sorted.
        mesh_share_s: of each cold start, from the call's start to its answer, less what its Triton
            took to start and load and the model to answer when warm; sorted.
        cold_start_s: from the call's start to its answer, sorted.
    """

    to_decision_s: list[float]
    mesh_share_s: list[float]
    cold_start_s: list[float]


async def measure(wakes: int, cold_starts: int, progress: Progress) -> Wakes:
    """Runs a mesh of its own; leaves nothing running.

    Args:
        wakes: deployments at zero that get their first request while no node could take them.
        cold_starts: deployments at zero whose first request is answered.
        progress: told how far it is.
    """
    with tempfile.TemporaryDirectory(prefix="forebay-bench-") as scratch:
        options = MeshOptions(
            state_dir=Path(scratch) / "state",
            triton_home=triton_setup.default_home(),
            slots=1,
            router=ANY_PORT,
            autoscaler=ANY_PORT,
            metrics=ANY_PORT,
            metrics_http=ANY_PORT,
        )
        async with (
            LocalMesh(options) as mesh,
            grpc.aio.insecure_channel(mesh.addresses.autoscaler) as autoscaler,
            grpc.aio.insecure_channel(mesh.addresses.router) as router,
            grpc.aio.insecure_channel(mesh.addresses.metrics) as metrics,
        ):
            digest = await _upload(autoscaler)
            turn = progress.add_task("waking", total=wakes + cold_starts)
            decided: list[float] = []
            for number in range(wakes):
                # No node has a GPU: it is decided on, and never placed.
                name = f"waits-{number}"
                await _create(autoscaler, name, digest, gpus=1)
                decided.append(await _wake(autoscaler, router, name))
                progress.advance(turn)
            shares: list[float] = []
            cold: list[float] = []
            for number in range(cold_starts):
                name = f"starts-{number}"
                await _create(autoscaler, name, digest, gpus=0)
                took_s, share_s = await _cold_start(router, metrics, name)
                cold.append(took_s)
                shares.append(share_s)
                await _until_no_replica(metrics)
                progress.advance(turn)
    return Wakes(sorted(decided), sorted(shares), sorted(cold))


def quantile(values: list[float], q: float) -> float:
    """The q-quantile of sorted values."""
    return values[min(len(values) - 1, int(len(values) * q))]


async def _upload(channel: grpc.aio.Channel) -> str:
    with tempfile.TemporaryFile() as archive:
        digest = model_archive.pack(MODEL, archive)
        model = Model(digest=digest, size_bytes=archive.tell())
        archive.seek(0)
        parts = iter(lambda: archive.read(CHUNK_BYTES), b"")
        requests = [UploadModelRequest(model=model)]
        requests += [UploadModelRequest(chunk=part) for part in parts]
        await ModelServiceStub(channel).UploadModel(iter(requests))
    return digest


async def _create(channel: grpc.aio.Channel, name: str, digest: str, gpus: int) -> None:
    deployment = Deployment(model_digest=digest, max_ongoing_requests=4)
    deployment.resources.gpus = gpus
    deployment.scaling.max_replicas = 1
    deployment.scaling.policy.queue_size.queue_size = 0
    for delay in ("upscale_delay", "downscale_delay", "downscale_to_zero_delay"):
        getattr(deployment.scaling, delay).SetInParent()
    await DeploymentServiceStub(channel).CreateDeployment(
        CreateDeploymentRequest(deployment_id=name, deployment=deployment)
    )


async def _wake(autoscaler: grpc.aio.Channel, router: grpc.aio.Channel, name: str) -> float:
    """Seconds from the start of a call to the decision to serve it, on this machine's one clock."""
    watch = AutoscalerServiceStub(autoscaler).WatchScaleDecisions(
        WatchScaleDecisionsRequest(parent=f"deployments/{name}")
    )
    await watch.initial_metadata()
    # The router hears of a deployment a moment after it is declared.
    await asyncio.sleep(0.3)
    started_s = time.time()
    call = router.unary_unary(METHOD)(_request(name), timeout=DECIDED_WITHIN_S)
    try:
        async with asyncio.timeout(DECIDED_WITHIN_S):
            async for response in watch:
                decision: ScaleDecision = response.scale_decision
                if decision.target_after:
                    return decision.decide_time.ToNanoseconds() / 1e9 - started_s
    finally:
        watch.cancel()
        call.cancel()
    raise RuntimeError("decisions ended")


async def _cold_start(
    router: grpc.aio.Channel, metrics: grpc.aio.Channel, name: str
) -> tuple[float, float]:
    await asyncio.sleep(0.3)
    infer = router.unary_unary(METHOD)
    started_s = time.perf_counter()
    await infer(_request(name), timeout=COLD_START_TIMEOUT_S)
    took_s = time.perf_counter() - started_s
    warm_s = []
    for _ in range(5):
        began_s = time.perf_counter()
        await infer(_request(name), timeout=COLD_START_TIMEOUT_S)
        warm_s.append(time.perf_counter() - began_s)
    startup_s = await _startup_s(metrics, name)
    return took_s, took_s - startup_s - statistics.median(warm_s)


async def _startup_s(metrics: grpc.aio.Channel, name: str) -> float:
    """How long the Triton of a deployment took from its start to READY, as its agent says."""
    while True:
        nodes = (await NodeServiceStub(metrics).ListNodes(ListNodesRequest())).nodes
        for node in nodes:
            for replica in node.replicas:
                if replica.deployment == f"deployments/{name}" and replica.HasField("startup_time"):
                    return float(replica.startup_time.ToNanoseconds()) / 1e9
        await asyncio.sleep(0.05)


async def _until_no_replica(metrics: grpc.aio.Channel) -> None:
    async with asyncio.timeout(COLD_START_TIMEOUT_S):
        while True:
            nodes = (await NodeServiceStub(metrics).ListNodes(ListNodesRequest())).nodes
            if not any(node.replicas for node in nodes):
                return
            await asyncio.sleep(0.1)


def _request(name: str) -> bytes:
    made = service_pb2.ModelInferRequest(model_name=name)
    made.inputs.add(name="INPUT", datatype="UINT8", shape=[8])
    made.raw_input_contents.append(bytes(8))
    return bytes(made.SerializeToString())
