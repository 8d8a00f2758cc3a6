"""Pure: how the engine gives GPUs to containers, from what it says of itself."""

from collections.abc import Mapping
from typing import Any

NVIDIA_CDI = "nvidia.com/gpu="


def uses_cdi(info: Mapping[str, Any]) -> bool:
    """Whether GPUs are given as CDI devices.

    Docker from 28.2 lists the devices that it knows and has CDI on whether there are any or not;
    before, folders are named only if somebody turned CDI on.

    Args:
        info: what the engine says of itself.
    """
    devices = info.get("DiscoveredDevices")
    if devices is not None:
        return any(str(device.get("ID", "")).startswith(NVIDIA_CDI) for device in devices)
    return bool(info.get("CDISpecDirs"))
