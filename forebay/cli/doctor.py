"""`forebay doctor`: what is missing on this machine and how to get it."""

from dataclasses import asdict
from pathlib import Path

from forebay import addresses
from forebay.cli.failure import CliError
from forebay.cli.output import Output, print_json, print_table, progress, say
from forebay.local import triton_setup
from forebay.local.doctor import State, examine


def run(state_dir: Path | None, output: Output) -> None:
    """Prints what was found.

    Raises:
        CliError: if something is missing.
    """
    with progress("looking at this machine"):
        checks = examine(state_dir or addresses.default_state_dir(), triton_setup.default_home())
    if output is Output.JSON:
        print_json([asdict(check) for check in checks])
    else:
        print_table(
            ("WHAT", "STATE", "FOUND", "WHAT TO DO"),
            [(check.name, check.state, check.detail, check.remedy) for check in checks],
        )
    missing = [check.name for check in checks if check.state is State.MISSING]
    if missing:
        raise CliError(f"missing: {', '.join(missing)}")
    say("everything that is needed is here")
