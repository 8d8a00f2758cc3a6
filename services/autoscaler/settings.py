"""What the autoscaler can be told."""

from pathlib import Path

from pydantic import Field

from services.runtime import ports
from services.runtime.config import Address, ServiceSettings, service_config


class AutoscalerSettings(ServiceSettings):
    """Settings of forebay-autoscaler."""

    model_config = service_config("autoscaler")

    listen: Address = Field(
        ports.AUTOSCALER,
        description="Where gRPC listens, as host:port; port 0: the kernel chooses.",
    )
    metrics: Address = Field(ports.METRICS, description="Where metrics listens, as host:port.")
    node_grace_s: float = Field(
        10.0,
        ge=1,
        le=3600,
        description="How long a node may be absent before its replicas move to others. Longer "
        "than a restart of its agent takes.",
    )
    spool_dir: Path | None = Field(
        None,
        description="Where models being uploaded are kept until they are checked; needs room for "
        "the largest. Unset: the system's temporary folder.",
    )
