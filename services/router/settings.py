"""What a router can be told."""

from pydantic import Field

from services.runtime import ports
from services.runtime.config import Address, ServiceSettings, service_config


class RouterSettings(ServiceSettings):
    """The front door of the mesh: takes gRPC calls and answers them through the queue."""

    model_config = service_config("router")

    listen: Address = Field(ports.ROUTER, description="Where gRPC clients connect, as host:port.")
    http_listen: Address | None = Field(
        None, description="Where Prometheus scrapes this router, as host:port; none: nowhere."
    )
    max_pending_calls: int = Field(
        10_000, ge=1, le=1_000_000, description="Calls held at once; more are refused."
    )
    max_pending_bytes: int = Field(
        256 * 1024 * 1024,
        ge=16 * 1024 * 1024,
        description="Bodies held at once for publishing again, in bytes; more are refused.",
    )
    arena_bytes: int = Field(
        128 * 1024 * 1024,
        ge=0,
        le=64 * 1024**3,
        description="Shared memory for large bodies, in bytes; 0 sends all through the queue.",
    )
    drain_s: float = Field(
        60.0,
        ge=0,
        le=3600,
        description=(
            "How long SIGTERM waits for calls under way, in seconds. At least the longest "
            "request_timeout_s, and less than the supervisor's own patience."
        ),
    )
