"""What spans say is said by the names that OpenTelemetry gives it."""

from opentelemetry.semconv._incubating.attributes import (
    host_attributes,
    messaging_attributes,
    rpc_attributes,
    service_attributes,
)
from opentelemetry.semconv.attributes import error_attributes, server_attributes

from services.runtime import trace_words

KNOWN = {
    value
    for module in (
        host_attributes,
        messaging_attributes,
        rpc_attributes,
        service_attributes,
        error_attributes,
        server_attributes,
    )
    for value in vars(module).values()
    if isinstance(value, str)
}
VALUES = {trace_words.GRPC, trace_words.NATS}


def test_every_attribute_is_one_of_the_conventions_or_our_own() -> None:
    ours = {value for name, value in vars(trace_words).items() if name.isupper()}
    names = {value for value in ours if isinstance(value, str)} - VALUES
    own = {name for name in names if name.startswith(("forebay.", "triton."))}
    assert names - own
    assert names - own <= KNOWN


def test_none_of_them_is_deprecated() -> None:
    assert not {"rpc.system", "rpc.service", "rpc.grpc.status_code", "messaging.operation"} & {
        value for value in vars(trace_words).values() if isinstance(value, str)
    }
