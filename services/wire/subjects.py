"""Every NATS subject of the mesh. Names that go into one have passed `names.check_id`."""

REQUESTS = "forebay.request.*"
"""Requests as they wait in JetStream, by deployment."""

KEPT_REPLIES = "forebay.kept.*"
"""Replies to idempotent requests, by request id."""

MAX_DELIVERIES_ADVISORY = "$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES"
"""Prefix of the server's word that a message has used up its deliveries."""


def request(deployment: str) -> str:
    """Where requests for a deployment wait."""
    return f"forebay.request.{deployment}"


def accepted(router_id: str, request_id: str) -> str:
    """Where the server tells a router that it has stored a request."""
    return f"forebay.accepted.{router_id}.{request_id}"


def reply(router_id: str, request_id: str) -> str:
    """Where a router awaits the reply to a request."""
    return f"forebay.reply.{router_id}.{request_id}"


def kept_reply(request_id: str) -> str:
    """Where the reply to an idempotent request is kept and awaited."""
    return f"forebay.kept.{request_id}"


def failed_reply(request_id: str) -> str:
    """Where a reply to an idempotent request is awaited that is not kept, such as a failure."""
    return f"forebay.failed.{request_id}"


def cancel(deployment: str) -> str:
    """Where routers say that nobody waits any more; the payload is the request id."""
    return f"forebay.cancel.{deployment}"


def body(router_id: str) -> str:
    """Where a router answers a request id with the body it keeps."""
    return f"forebay.body.{router_id}"


def statistics(deployment: str) -> str:
    """Where every replica of a deployment answers with Triton's ModelStatistics."""
    return f"forebay.statistics.{deployment}"


def replica_log(node: str) -> str:
    """Where a node's agent answers a ReadReplicaLogRequest."""
    return f"forebay.log.{node}"


def wake(deployment: str) -> str:
    """Where routers say that a request waits for a deployment without a ready replica."""
    return f"forebay.wake.{deployment}"


WAKES = "forebay.wake.*"
"""All of them."""

DECISIONS = "forebay.decision.*"
"""Scale decisions as they are kept, by deployment."""


def decision(deployment: str) -> str:
    """Where scale decisions of a deployment are kept."""
    return f"forebay.decision.{deployment}"
