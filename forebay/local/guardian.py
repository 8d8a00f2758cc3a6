"""Ends the node agents that an autoscaler has added, should the mesh be killed.

The processes of a mesh end with their parent, as the kernel sees to (see spawn.py). The parent of
an added agent is an autoscaler, which it has to outlive: only the mesh knows when it is to end.

    python -m forebay.local.guardian STATE_DIR
"""

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from forebay.local import state

AGENT_GRACE_S = 40.0
"""Agents drain and stop their Tritons."""


class Guardian:
    """A process that waits for the end of this one, however it comes."""

    def __init__(self, state_dir: Path, environment: Mapping[str, str]) -> None:
        """Starts it.

        Args:
            state_dir: of the mesh.
            environment: of the mesh's processes.
        """
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "forebay.local.guardian", str(state_dir)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            # It is not one of the processes that are swept before the mesh ends.
            env={k: v for k, v in environment.items() if k != state.STATE_VARIABLE},
            start_new_session=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Ends it: the mesh has ended its processes itself."""
        self._process.kill()
        self._process.wait()
        assert self._process.stdin is not None
        self._process.stdin.close()


def main() -> None:
    """Waits for the end of standard input, then ends the agents of the state directory."""
    state_dir = Path(sys.argv[1])
    sys.stdin.buffer.read()
    # Those there are now: agents of a mesh that is started meanwhile are not among them.
    state.end(state.agents_of(state_dir), AGENT_GRACE_S)


if __name__ == "__main__":
    main()
