"""Pure: the progress of a pull, of which the engine writes a thousand lines, in one line."""

from collections.abc import Mapping
from typing import Any

from services.launcher.reasons import size

MAX_LAYERS = 256

_DONE = frozenset({"Pull complete", "Already exists"})
_LOADED = frozenset({"Download complete", "Verifying Checksum", "Extracting"}) | _DONE


class PullProgress:
    """What is known of a pull so far."""

    def __init__(self, image: str) -> None:
        self._image = image
        self._status: dict[str, str] = {}
        self._current_bytes: dict[str, int] = {}
        self._total_bytes: dict[str, int] = {}

    def take(self, step: Mapping[str, Any]) -> None:
        """Takes a line of the engine's; one that says nothing of a layer changes nothing."""
        layer, status = str(step.get("id") or ""), str(step.get("status") or "")
        known = layer in self._status
        # The first line is of the image itself and has its tag for an id.
        if (
            not layer
            or status.startswith("Pulling from")
            or (not known and len(self._status) >= MAX_LAYERS)
        ):
            return
        self._status[layer] = status
        detail = step.get("progressDetail") or {}
        if status == "Downloading" and detail.get("total"):
            self._current_bytes[layer] = int(detail.get("current") or 0)
            self._total_bytes[layer] = int(detail["total"])
        elif status in _LOADED and layer in self._total_bytes:
            self._current_bytes[layer] = self._total_bytes[layer]

    def line(self) -> str:
        """What is going on, for a person."""
        if not self._status:
            return f"pulling {self._image}"
        done = sum(status in _DONE for status in self._status.values())
        text = f"pulling {self._image}: {done} of {len(self._status)} layers there"
        if self._total_bytes:
            current, total = sum(self._current_bytes.values()), sum(self._total_bytes.values())
            text += f", {size(current) if current else 0} of {size(total)} loaded"
        return text
