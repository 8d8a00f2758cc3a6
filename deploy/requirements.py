"""Prints what a project and some of its extras need, one requirement a line.

python requirements.py pyproject.toml EXTRA…

An image installs this before the sources are there, so that a change of the sources does not
install everything again.
"""

import sys
import tomllib
from pathlib import Path


def main() -> None:
    """Reads the project file named first and prints its requirements."""
    project = tomllib.loads(Path(sys.argv[1]).read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *(r for name in sys.argv[2:] for r in extras.get(name, []))]
    sys.stdout.write("\n".join(wanted) + "\n")


if __name__ == "__main__":
    main()
