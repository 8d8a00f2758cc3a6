"""Memory that was freed is kept by the process."""

import subprocess
import sys

_SCRIPT = """
import resource
from services.runtime import memory

def faults(count):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(count):
        # Two at a time: one block alone at the end of the heap shows less.
        one, two = bytearray(600_000), bytearray(600_000)
        del one, two
    return (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / count

{call}
faults(5)
print(faults(200))
"""


def faults_per_pair(call: str) -> float:
    script = _SCRIPT.format(call=call)
    return float(subprocess.check_output([sys.executable, "-c", script]))


def test_large_blocks_are_used_again_without_page_faults() -> None:
    kept = faults_per_pair("memory.keep_freed()")
    given_back = faults_per_pair("")
    assert kept < 1
    assert given_back > 10 * max(kept, 1), "glibc does it by itself: the setting is not needed"
