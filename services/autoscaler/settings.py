"""What the autoscaler can be told."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, ValidationInfo, field_validator

from services.autoscaler.callbacks import addresses
from services.runtime import ports
from services.runtime.config import Address, ServiceSettings, service_config
from services.wire import offered_volumes


def _volumes(value: dict[str, str]) -> dict[str, str]:
    offered_volumes.offered(value)
    return value


def _networks(value: str) -> str:
    addresses.parse_networks(value)
    return value


class AutoscalerSettings(ServiceSettings):
    """Settings of forebay-autoscaler."""

    model_config = service_config("autoscaler")

    listen: Address = Field(
        ports.AUTOSCALER,
        description="Where gRPC listens, as host:port; port 0: the kernel chooses.",
    )
    advertise: Address | None = Field(
        None,
        description="Where other autoscalers and agents reach it, as host:port, told to them while "
        "it leads. Unset: where it listens; set it if that is 0.0.0.0.",
    )
    http_listen: Address | None = Field(
        None, description="Where Prometheus scrapes this autoscaler, as host:port; none: nowhere."
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
    policies_dir: Path | None = Field(
        None,
        description="Where functions of custom policies are imported from. They run with the "
        "autoscaler's rights, so only who may change the autoscaler should write there. Unset: "
        "there are no custom policies.",
    )
    node_provider: Literal["none", "webhook", "local"] = Field(
        "none",
        description="Who adds machines that are missing and releases idle ones. none: what is "
        "missing is only shown; webhook: told to a server of yours; local: node agents are started "
        "and stopped on this machine, for trying things out.",
    )
    mesh: str = Field(
        "forebay",
        min_length=1,
        max_length=100,
        description="Name of the mesh, told to the webhook.",
    )
    webhook_url: str | None = Field(
        None,
        pattern=r"^https?://[^\s]+$",
        validate_default=True,
        description="Where the webhook provider sends what is missing. Private addresses are fine.",
    )
    webhook_secret_file: Path | None = Field(
        None,
        validate_default=True,
        description="File with the secret that signs what is sent, as Standard Webhooks has it: "
        "whsec_ and 24 to 64 bytes in base64. Read at every sending.",
    )
    node_idle_delay_s: float = Field(
        300.0,
        ge=0,
        le=7 * 24 * 3600,
        description="How long a node must have been idle to be released, in seconds.",
    )
    keep_nodes: int = Field(
        0, ge=0, le=100_000, description="How many nodes are kept at least, however idle."
    )
    consolidation: bool | None = Field(
        None,
        description="Whether the replicas of a lightly used node move to fuller ones, so that it "
        "becomes idle. Unset: if the node provider can release nodes.",
    )
    consolidation_delay_s: float = Field(
        60.0,
        ge=0,
        le=24 * 3600,
        description="How long a node must have been used by half or less before its replicas move, "
        "in seconds.",
    )
    local_max_nodes: int = Field(
        4, ge=1, le=64, description="How many node agents the local provider runs at most."
    )
    local_state_dir: Path | None = Field(
        None,
        validate_default=True,
        description="Where the local provider's node agents keep their state and logs.",
    )
    local_autoscaler: str | None = Field(
        None,
        description="Autoscalers that the local provider's node agents dial, as host:port; several "
        "separated by commas. Unset: this one.",
    )
    local_triton_home: Path | None = Field(
        None,
        description="Triton for the local provider's node agents. Unset: where they find it "
        "themselves.",
    )
    local_slots: int = Field(
        2, ge=0, le=1024, description="CPU slots of each of the local provider's node agents."
    )
    local_volumes: Annotated[dict[str, str], AfterValidator(_volumes)] = Field(
        {},
        description="Volumes of each of the local provider's node agents, as name and absolute "
        "path; with :ro for reading only.",
    )
    local_simulated_gpus: int = Field(
        0,
        ge=0,
        le=16,
        description="Simulated GPUs of each of the local provider's node agents. Leave it 0 only "
        "on a machine without GPUs: agents of one machine would share them without knowing.",
    )
    local_simulated_gpu_product: str = Field(
        "Simulated GPU",
        min_length=1,
        max_length=100,
        description="Product that those GPUs pretend to be.",
    )

    callback_secret_file: Path | None = Field(
        None,
        description="File with the secret that signs callbacks of tasks, as Standard Webhooks has "
        "it: whsec_ and 24 to 64 bytes in base64; while receivers change to a new one, both, one a "
        "line. Read again every 10 s. Unset: no callback is made, and they wait.",
    )
    callback_allowed_networks: Annotated[str, AfterValidator(_networks)] = Field(
        "",
        description="Networks that callbacks may go to though their addresses are not public, such "
        "as 10.1.0.0/16; several separated by commas. Whoever submits a task says where its "
        "callback goes: allow only what they all may reach.",
    )

    @field_validator("webhook_url", "webhook_secret_file", "local_state_dir")
    @classmethod
    def _given_if_needed(cls, value: object, info: ValidationInfo) -> object:
        provider = str(info.field_name).partition("_")[0]
        if value is None and info.data.get("node_provider") == provider:
            raise ValueError(f"node_provider = {provider} needs it: set {info.field_name}")
        return value
