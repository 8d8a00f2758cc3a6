"""What the metrics service can be told."""

from pydantic import Field

from services.runtime import ports
from services.runtime.config import Address, ServiceSettings, service_config


class MetricsSettings(ServiceSettings):
    """Settings of forebay-metrics."""

    model_config = service_config("metrics")

    listen: Address = Field(
        ports.METRICS, description="Where gRPC listens, as host:port; port 0: the kernel chooses."
    )
    http_listen: Address = Field(
        ports.METRICS_HTTP,
        description="Where HTTP serves the built-in page, /metrics and /healthz, as host:port.",
    )
    report_interval_s: float = Field(
        1.0, ge=0.1, le=60, description="How often node agents are asked to report."
    )
    node_grace_s: float = Field(
        5.0,
        ge=0.5,
        le=3600,
        description="How long a node may be silent before it is OFFLINE. At least three report "
        "intervals, or a busy node flickers.",
    )
    window_s: float = Field(
        30.0,
        ge=1,
        le=3600,
        description="Length of the window over which rates and quantiles are taken.",
    )
