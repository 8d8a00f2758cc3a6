"""The span of a scale decision, and what follows from it."""

from pathlib import Path

from tests.support.agent import Agent
from tests.support.control_plane import control_plane
from tests.support.eventually import eventually
from tests.support.otlp_receiver import OtlpReceiver, attributes


async def test_a_rise_is_a_trace_that_its_assignments_go_on_with(tmp_path: Path) -> None:
    with OtlpReceiver() as receiver:
        with receiver.told_by("autoscaler"):
            async with control_plane(tmp_path) as mesh:
                agent = await mesh.agent(Agent("a"))
                await mesh.create("add", replicas=2)
                await mesh.ready("add", 2)
                await mesh.update("add", "replicas", replicas=1)
                await mesh.ready("add", 1)
                # The status may tell of the fall before the node hears of it.
                await eventually(lambda: len(agent.assignments) == 1)
                (kept,) = agent.assignments
                await eventually(lambda: receiver.named("scale decision"))
        # A fall brings no replica, and has no span.
        (span,) = receiver.named("scale decision")
        assert (span.parent_span_id, span.kind) == (b"", span.SPAN_KIND_INTERNAL)
        assert kept.traceparent[3:52] == f"{span.trace_id.hex()}-{span.span_id.hex()}"
        assert attributes(span) == {
            "forebay.deployment": "add",
            "forebay.scale_decision": kept.scale_decision,
            "forebay.replicas.from": 0,
            "forebay.replicas.to": 2,
            "forebay.reason": "2 replicas, fixed: the deployment has no scaling policy",
        }
        assert kept.scale_decision.startswith("deployments/add/decisions/")
