"""Pure: durations counted in buckets, and for each bucket a trace that shows one of them."""

from bisect import bisect_left

from forebay.v1.node_pb2 import Histogram

BOUNDS_S = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0,
    1.5, 2.5, 4.0, 6.0, 8.0, 10.0, 15.0, 20.0, 30.0, 45.0, 60.0, 120.0, 300.0,
)  # fmt: skip

REPORTS = 30
"""An exemplar is told in so many: metrics reads one in three, and keeps it. Told for ever, the
traces of 20 replicas would be four fifths of each report."""


class DurationHistogram:
    """Counts of durations in seconds, from 1 ms to 5 minutes and beyond."""

    __slots__ = ("_counts", "_exemplars", "_sum_s")

    def __init__(self) -> None:
        self._counts = [0] * (len(BOUNDS_S) + 1)
        self._sum_s = 0.0
        # By bucket, with the number of reports that it has yet to be in.
        self._exemplars: dict[int, tuple[Histogram.Exemplar, int]] = {}

    def observe(self, duration_s: float, trace_id: str = "", wall_s: float = 0.0) -> None:
        """Counts one duration; a negative one, as two clocks can give, counts as zero.

        Args:
            duration_s: seconds.
            trace_id: 32 hexadecimal digits of a trace that is kept and shows this duration; the
                last one of each bucket is remembered. Empty: there is none.
            wall_s: now, in seconds since the epoch; of no account without a trace.
        """
        bucket = bisect_left(BOUNDS_S, duration_s)
        self._counts[bucket] += 1
        duration_s = max(0.0, duration_s)
        self._sum_s += duration_s
        if trace_id:
            exemplar = Histogram.Exemplar(bucket=bucket, value_s=duration_s, trace_id=trace_id)
            exemplar.observe_time.FromNanoseconds(int(wall_s * 1e9))
            self._exemplars[bucket] = (exemplar, REPORTS)

    def to_proto(self) -> Histogram:
        """As it is reported; called once for each report."""
        told = [exemplar for exemplar, _ in self._exemplars.values()]
        if told:
            self._exemplars = {
                bucket: (exemplar, left - 1)
                for bucket, (exemplar, left) in self._exemplars.items()
                if left > 1
            }
        return Histogram(
            bounds_s=BOUNDS_S,
            counts=self._counts,
            sum_s=self._sum_s,
            exemplars=told,
        )
