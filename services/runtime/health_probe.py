"""Asks once whether a process serves, for a container engine's or a supervisor's health check.

    python -m services.runtime.health_probe ADDRESS [SERVICE]

It imports nothing of the services: a check every few seconds costs little more than Python's start
and gRPC's (0.1 s of CPU; half of it where the address is http://…).
"""

import sys

TIMEOUT_S = 4.0


class NotServingError(Exception):
    """What was asked does not serve; the text says how that shows."""


def probe(address: str, timeout_s: float = TIMEOUT_S, service: str = "") -> None:
    """Returns if what listens at an address serves.

    Args:
        address: `host:port` or `unix:/path` for the standard gRPC health service; `http://…`, where
            any answer below 400 will do.
        timeout_s: how long the answer may take, more than 0.
        service: the gRPC service that is asked after; empty for the server as a whole.

    Raises:
        NotServingError: if it does not answer in that time, or answers that it does not serve.
    """
    if address.startswith(("http://", "https://")):
        _probe_http(address, timeout_s)
    else:
        _probe_grpc(address, timeout_s, service)


def _probe_http(url: str, timeout_s: float) -> None:
    # Here, as gRPC below: a check pays for what it uses.
    import urllib.error
    import urllib.request

    # No proxy: what is asked is beside us.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        opener.open(url, timeout=timeout_s).close()
    except urllib.error.HTTPError as error:
        error.close()
        raise NotServingError(f"{url} answers {error.code} {error.reason}") from None
    except (OSError, ValueError) as error:
        raise NotServingError(f"{url} does not answer: {error}") from None


def _probe_grpc(address: str, timeout_s: float, service: str) -> None:
    import grpc
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    options = [("grpc.enable_http_proxy", 0), ("grpc.use_local_subchannel_pool", 1)]
    with grpc.insecure_channel(address, options=options) as channel:
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(
                health_pb2.HealthCheckRequest(service=service), timeout=timeout_s
            )
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.UNIMPLEMENTED:
                raise NotServingError(f"{address} has no health service") from None
            if error.code() is grpc.StatusCode.NOT_FOUND:
                raise NotServingError(f"{address} does not serve {service}") from None
            raise NotServingError(f"{address} does not answer: {error.details()}") from None
    status = health_pb2.HealthCheckResponse.ServingStatus
    if answer.status != status.SERVING:
        raise NotServingError(f"{address} answers {status.Name(answer.status)}")


def main() -> None:
    """Ends the process with 0 if what listens at the first argument serves, else with 1."""
    if len(sys.argv) not in (2, 3):
        sys.stderr.write("usage: python -m services.runtime.health_probe ADDRESS [SERVICE]\n")
        raise SystemExit(2)
    try:
        probe(sys.argv[1], service=(sys.argv[2:] or [""])[0])
    except NotServingError as error:
        sys.stderr.write(f"{error}\n")
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
