"""One clock for queue waits."""

from services.wire.server_clock import parse_time_s


def test_nanoseconds_of_a_server_time_are_read() -> None:
    assert parse_time_s("1970-01-01T00:00:01.123456789Z") == 1.123456789


def test_a_time_without_a_fraction_or_in_another_zone_is_read() -> None:
    assert parse_time_s("1970-01-01T00:00:02Z") == 2.0
    assert parse_time_s("1970-01-01T01:00:02.5+01:00") == 2.5
