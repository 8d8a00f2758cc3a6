"""From a slow bucket in Prometheus to the trace of a request, through a real agent and Triton."""

import asyncio
import json
import time
from pathlib import Path

import grpc
import pytest

from forebay.v1.inference_pb2 import InferRequest
from tests.support.chaos_model import write_chaos
from tests.support.eventually import eventually
from tests.support.forebay_up import ForebayUp
from tests.support.otlp_receiver import OtlpReceiver
from tests.support.prometheus_server import PrometheusServer

INFER = "/forebay.v1.RouterService/Infer"


def call(up: ForebayUp, traceparent: str) -> None:
    """One inference within a trace of the caller's own."""
    request = InferRequest(model_name="said")
    request.inputs.add(name="DO", datatype="BYTES", shape=[1])
    word = b"wait:0.02"
    request.raw_input_contents.append(len(word).to_bytes(4, "little") + word)
    with grpc.insecure_channel(up.mesh["router"]) as channel:
        infer = channel.unary_unary(INFER)
        infer(request.SerializeToString(), timeout=60, metadata=[("traceparent", traceparent)])


async def test_exemplars_lead_to_traces_that_were_sampled_and_to_no_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sampled, other = "a" * 31 + "1", "b" * 31 + "2"
    began_s = time.time() - 1
    with OtlpReceiver() as receiver:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{receiver.port}")
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
        with ForebayUp(tmp_path / "state") as up:
            up.forebay("deploy", write_chaos(tmp_path / "said", name="said")).ok()
            ready = json.loads((up.state_dir / "run" / "metrics.json").read_text())
            targets = {"forebay-metrics": ready["metrics_http"]}
            with PrometheusServer(tmp_path / "prometheus", targets) as prometheus:
                call(up, f"00-{sampled}-{'1' * 16}-01")
                call(up, f"00-{other}-{'2' * 16}-00")
                found = await _exemplars(prometheus, began_s)
                assert {one["labels"]["trace_id"] for one in found} == {sampled}
                ended_s = time.time() + 1
                assert all(began_s <= one["timestamp"] <= ended_s for one in found)
                await eventually(lambda: "attempt" in receiver.trace(sampled))
            # What has not changed is not a new exemplar.
            assert len(found) == len({json.dumps(one) for one in found})


async def _exemplars(prometheus: PrometheusServer, began_s: float) -> list[dict[str, object]]:
    def both() -> list[dict[str, object]]:
        found: list[dict[str, object]] = []
        for name in ("queue_wait", "service_time"):
            of_name = prometheus.exemplars(f"forebay_{name}_seconds_bucket", began_s)
            assert len(of_name) == 1, of_name
            found += of_name
        return found

    def counted() -> bool:
        seen = prometheus.query('forebay_attempts_total{outcome="ok"} == 2')
        return bool(seen)

    await eventually(lambda: asyncio.to_thread(counted), timeout_s=60)
    return await eventually(lambda: asyncio.to_thread(both), timeout_s=60)
