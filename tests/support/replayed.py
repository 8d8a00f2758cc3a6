"""Every decision that a test's mesh has made, made again from what was kept of it."""

import grpc

from forebay.v1.autoscaler_pb2 import ListScaleDecisionsRequest
from forebay.v1.autoscaler_pb2_grpc import AutoscalerServiceStub
from services.autoscaler.scaling import record

PAGE_SIZE = 1000
TIMEOUT_S = 10.0

_STOPPED = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)


def check_decisions(autoscaler: str) -> int:
    """Asserts that each comes out the same; returns how many there were.

    An autoscaler that the test has stopped or killed has nothing to say: 0.

    Args:
        autoscaler: where it listens, as host:port.
    """
    count, token = 0, ""
    with grpc.insecure_channel(autoscaler) as channel:
        stub = AutoscalerServiceStub(channel)
        while True:
            request = ListScaleDecisionsRequest(page_size=PAGE_SIZE, page_token=token)
            try:
                page = stub.ListScaleDecisions(request, timeout=TIMEOUT_S)
            except grpc.RpcError as error:
                if error.code() not in _STOPPED:
                    raise
                return count
            for decision in page.scale_decisions:
                assert record.agrees(decision), decision
            count += len(page.scale_decisions)
            token = page.next_page_token
            if not token:
                return count
