"""What an agent writes down of a Triton, for the agent after it. This test's process stands in."""

import json
import os
from pathlib import Path

from services.node_agent.triton.triton_process import ProcessRecord, TritonProcess, start_ticks


def test_how_long_a_triton_took_to_start_is_known_to_who_adopts_it(tmp_path: Path) -> None:
    record = ProcessRecord(os.getpid(), start_ticks(os.getpid()), port=1234)
    TritonProcess(tmp_path, record, None).note_startup(2.5)
    adopted = TritonProcess.adopt(tmp_path)
    assert adopted is not None
    assert adopted.record.startup_s == 2.5
    assert adopted.address == "127.0.0.1:1234"


def test_a_record_without_it_is_adopted_too(tmp_path: Path) -> None:
    record = {"pid": os.getpid(), "start_ticks": start_ticks(os.getpid()), "port": 1234}
    (tmp_path / "process.json").write_text(json.dumps(record))
    adopted = TritonProcess.adopt(tmp_path)
    assert adopted is not None
    assert adopted.record.startup_s == 0
