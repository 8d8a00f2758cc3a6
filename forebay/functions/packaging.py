"""Writes a function as a Triton model directory; the same source always gives the same bytes.

config.pbtxt            inputs, outputs, batching
requirements.txt        the function's, and msgpack
1/model.py              what Triton loads
1/function.json         which function of which module it is
1/forebay_runner/       runs it
1/shim/forebay/         what `import forebay` finds in a replica
1/code/                 the user's files
"""

import json
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from forebay.functions import runner
from forebay.functions.runner.worker import CODE_DIRECTORY, DESCRIPTION_FILE, SHIM_DIRECTORY
from forebay.functions.sources import Source

MSGPACK = "msgpack==1.2.4"
MAX_ITEMS = 65536
"""Items in one request to a function that takes them one by one."""

# Not msgpack-numpy and the like.
_NAMES_MSGPACK = re.compile(r"msgpack\s*($|[^\w.\-\s])", re.IGNORECASE)

_RUNNER_MODULES = ("__init__", "attempt_limit", "codec", "failures", "worker")

_CONFIG = """\
# A function of Forebay's. ITEM is a msgpack list of arguments and keyword arguments.
backend: "python"
max_batch_size: {max_batch_size}
input [ {{ name: "ITEM", data_type: TYPE_STRING, dims: [ 1 ] }} ]
output [ {{ name: "RESULT", data_type: TYPE_STRING, dims: [ 1 ] }} ]
instance_group [ {{ count: 1, kind: KIND_CPU }} ]
"""


def write(
    directory: Path,
    source: Source,
    files: Mapping[str, Path],
    requirements: Sequence[str],
    max_batch_size: int | None,
    batch_delay_s: float,
) -> None:
    """Writes the model directory of a function.

    Args:
        directory: an empty directory.
        source: where the function is defined.
        files: what it consists of, by paths below its root.
        requirements: lines of its requirements.txt.
        max_batch_size: items in a call at most; None for a function that takes one at a time.
        batch_delay_s: seconds to wait for more items of a call.

    Raises:
        OSError: if a file cannot be read or written.
    """
    version = directory / "1"
    code = version / CODE_DIRECTORY
    code.mkdir(parents=True)
    config = _CONFIG.format(max_batch_size=max_batch_size or MAX_ITEMS)
    if max_batch_size is not None:
        delay_us = round(batch_delay_s * 1e6)
        config += f"dynamic_batching {{ max_queue_delay_microseconds: {delay_us} }}\n"
    (directory / "config.pbtxt").write_text(config)
    (directory / "requirements.txt").write_text(_requirements(requirements))
    description = {
        "module": source.module,
        "name": source.name,
        "batch": max_batch_size is not None,
    }
    (version / DESCRIPTION_FILE).write_text(f"{json.dumps(description, sort_keys=True)}\n")
    here = Path(runner.__file__).parent
    shutil.copyfile(here / "model.py", version / "model.py")
    (version / "forebay_runner").mkdir()
    for name in _RUNNER_MODULES:
        shutil.copyfile(here / f"{name}.py", version / "forebay_runner" / f"{name}.py")
    shim = version / SHIM_DIRECTORY / "forebay"
    shim.mkdir(parents=True)
    shutil.copyfile(here / "shim.py", shim / "__init__.py")
    for name, path in files.items():
        target = code / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)


def _requirements(requirements: Sequence[str]) -> str:
    lines = [line.strip() for line in requirements]
    if not any(_NAMES_MSGPACK.match(line) for line in lines):
        lines.append(MSGPACK)
    return "".join(f"{line}\n" for line in lines)
