"""Run by `make docs` as `python -m scripts.dashboards`."""

import json
from pathlib import Path
from typing import Any

from grafana_foundation_sdk.builders.dashboard import Dashboard
from grafana_foundation_sdk.cog.encoder import JSONEncoder

from scripts.dashboards import deployment, mesh

FOLDER = Path(__file__).resolve().parents[2] / "deploy" / "grafana" / "dashboards"


def text(made: Dashboard) -> str:
    """A dashboard as a file; always the same for the same description."""
    value: dict[str, Any] = json.loads(json.dumps(made.build(), cls=JSONEncoder))
    for number, panel in enumerate(value["panels"], 1):
        panel["id"] = number
    for annotation in value["annotations"]["list"]:
        # Of Prometheus' own annotations, which the library does not know.
        annotation |= {
            "step": "15s",
            "titleFormat": "{{deployment}}: {{direction}}",
            "tagKeys": "direction",
        }
    return json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def files() -> dict[Path, str]:
    """Every dashboard's file and what is in it."""
    return {
        FOLDER / "mesh.json": text(mesh.make()),
        FOLDER / "deployment.json": text(deployment.make()),
    }


def main() -> None:
    """Writes the files."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for file, content in files().items():
        file.write_text(content)


if __name__ == "__main__":
    main()
