"""Rewrites the transcripts: `python -m tests.simulation.update [WORD]`; review what it changes."""

import sys

from tests.simulation.scenario import SEPARATOR, Run, read, scenario_of
from tests.simulation.test_scenarios import SCENARIOS


def main() -> None:
    """Rewrites all transcripts, or those whose names have a word."""
    for path in SCENARIOS:
        if len(sys.argv) > 1 and sys.argv[1] not in path.stem:
            continue
        header, before = read(path)
        lines = Run(scenario_of(header)).play()
        transcript = "".join(f"{line}\n" for line in lines)
        if transcript != before:
            path.write_text(f"{header}{SEPARATOR}\n{transcript}")
            print(f"rewrote {path.name}: {len(lines)} lines")


if __name__ == "__main__":
    main()
