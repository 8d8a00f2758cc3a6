"""Exemplars of a histogram as agents report them. Pure."""

import math
import re

from forebay.v1.node_pb2 import Histogram as HistogramMessage
from services.metrics.window import Exemplar

_TRACE_ID = re.compile(r"[0-9a-f]{32}")


def read(message: HistogramMessage) -> tuple[Exemplar, ...]:
    """The exemplars of a histogram as plain values; which bucket each is in, its value says.

    Raises:
        ValueError: for the first that no agent in order could send.
    """
    if not message.exemplars:
        # As it is without traces, 40,000 times a second in a large mesh.
        return ()
    if len(message.exemplars) > len(message.counts):
        raise ValueError(
            f"exemplars: {len(message.exemplars)}; there may be one for each of "
            f"{len(message.counts)} buckets"
        )
    found: list[Exemplar] = []
    for exemplar in message.exemplars:
        if not 0 <= exemplar.value_s < math.inf:
            raise ValueError(f"exemplars: value_s = {exemplar.value_s}: must be 0 or more")
        if not _TRACE_ID.fullmatch(exemplar.trace_id):
            # It becomes a label, and is not repeated here: it could be anything.
            raise ValueError("exemplars: a trace_id is not 32 hexadecimal digits in lower case")
        found.append(Exemplar(exemplar.value_s, exemplar.trace_id))
    return tuple(found)
