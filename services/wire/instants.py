"""Instants as protos have them. Pure."""

from google.protobuf.timestamp_pb2 import Timestamp


def timestamp(seconds: float) -> Timestamp:
    """An instant as a proto.

    Args:
        seconds: since the epoch.
    """
    stamp = Timestamp()
    stamp.FromNanoseconds(int(seconds * 1e9))
    return stamp
