"""A mesh that functions of this process are deployed to."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from forebay.functions import connections
from tests.support.forebay_up import ForebayUp


@contextmanager
def functions_mesh(directory: Path) -> Iterator[ForebayUp]:
    """A mesh with room for many functions, which calls without an address go to."""
    with ForebayUp(directory / "state", "--slots", "16") as up:
        kept = os.environ.get("FOREBAY_STATE_DIR")
        os.environ["FOREBAY_STATE_DIR"] = str(up.state_dir)
        try:
            yield up
        finally:
            connections.close()
            if kept is None:
                del os.environ["FOREBAY_STATE_DIR"]
            else:
                os.environ["FOREBAY_STATE_DIR"] = kept
