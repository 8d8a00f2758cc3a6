"""Every scenario comes out as its transcript says, and keeps what it expects.

After a change that is meant: `python -m tests.simulation.update`, and review the difference.
"""

from pathlib import Path

import pytest

from services.autoscaler.simulation.invariants import check_mesh
from tests.simulation.scenario import Run, read, scenario_of

SCENARIOS = sorted((Path(__file__).parent / "scenarios").glob("*.txt"))


@pytest.mark.parametrize("path", SCENARIOS, ids=[path.stem for path in SCENARIOS])
def test_comes_out_as_written(path: Path) -> None:
    header, transcript = read(path)
    scenario = scenario_of(header)
    run = Run(scenario)
    lines = run.play()
    check_mesh(run.world.mesh)
    broken = [
        f"{e.sentence}: {failure}" for e in scenario.expectations if (failure := e.failure(run))
    ]
    assert not broken, "\n".join(broken)
    assert scenario.expectations, "a scenario expects something"
    assert lines == transcript.splitlines(), "python -m tests.simulation.update rewrites it"


@pytest.mark.parametrize("path", SCENARIOS, ids=[path.stem for path in SCENARIOS])
def test_decides_the_same_as_by_looking_at_everything_at_every_tick(path: Path) -> None:
    header, _ = read(path)
    sparing, thorough = Run(scenario_of(header)), Run(scenario_of(header), every_tick=True)
    assert sparing.play() == thorough.play()
