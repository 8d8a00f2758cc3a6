"""A request on its way through a replica."""

from dataclasses import dataclass

from forebay.v1.envelope_pb2 import RequestEnvelope


@dataclass(slots=True, eq=False)
class Ongoing:
    """A request inside the replica.

    Attributes:
        ack_subject: where the delivery is settled.
        envelope: the request.
        delivered_s: monotonic time of the delivery.
        deadline_s: monotonic time after which its caller is gone.
        progress_s: monotonic time of the last word to the queue.
        queue_wait_s: time from stored to delivered.
        delivery: deliveries so far, counting this one.
        over_limit: it has run longer than an attempt may.
        answered: Triton has answered it.
    """

    ack_subject: str
    envelope: RequestEnvelope
    delivered_s: float
    deadline_s: float
    progress_s: float
    queue_wait_s: float
    delivery: int
    over_limit: bool = False
    answered: bool = False
