"""Classifies the rows of a large file in shards, on as many replicas as the queue asks for.

forebay run examples/batch-job/classify.py [ROWS]
"""

import collections
import itertools
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import forebay

ROWS = 10_000
SHARD_ROWS = 250
ROW_CHARACTERS = 600


@forebay.function(
    cpus=1,
    requirements=["magika==1.0.3", "onnxruntime==1.31.1"],
    scaling=forebay.QueueDepth(max_tasks_per_replica=20, max_replicas=2),
    request_timeout_s=120,
)
class Classify:
    """Tells what each text of a shard is."""

    def on_start(self) -> None:
        """Loads the network once per replica, before the first shard."""
        from magika import Magika

        self.magika = Magika()

    def __call__(self, shard: list[str]) -> list[str]:
        """One label for each row."""
        found = (self.magika.identify_bytes(row.encode()) for row in shard)
        return [str(result.output.label) for result in found]


def write_rows(path: Path, count: int) -> None:
    """Makes a file to classify: pieces of the files of this Python's library."""
    root = Path(json.__file__).parents[1]
    files = [file for file in sorted(root.rglob("*.*")) if file.suffix in _SUFFIXES]
    texts = [file.read_text(errors="replace") for file in files[:400]]
    with path.open("w") as rows:
        for index in range(count):
            text = texts[index % len(texts)]
            start = (index // len(texts)) * ROW_CHARACTERS % max(1, len(text))
            row = {"id": index, "text": text[start : start + ROW_CHARACTERS]}
            rows.write(json.dumps(row) + "\n")


def shards(path: Path) -> Iterator[list[str]]:
    """The texts of the file, so many at a time; no more of it is in memory."""
    with path.open() as rows:
        while lines := list(itertools.islice(rows, SHARD_ROWS)):
            yield [json.loads(line)["text"] for line in lines]


def main() -> None:
    """Classifies the file, and says what there was and how long it took."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else ROWS
    source = Path(f"rows-{count}.jsonl")
    target = Path("labels.jsonl")
    if not source.exists():
        write_rows(source, count)
    counts: collections.Counter[str] = collections.Counter()
    began_s = time.monotonic()
    with target.open("w") as answers:
        # Shards go out to the replicas; their answers come back in order as they are done.
        for labels in Classify.map(shards(source), progress=True):
            counts.update(labels)
            answers.writelines(json.dumps({"label": label}) + "\n" for label in labels)
    elapsed_s = time.monotonic() - began_s
    for label, count in counts.most_common(10):
        print(f"{count:7} {label}")
    total = counts.total()
    print(f"{total} rows in {elapsed_s:.1f} s, {total / elapsed_s:.0f} a second: {target}")


_SUFFIXES = frozenset({".py", ".txt", ".html", ".css", ".json", ".xml", ".h", ".md", ".toml"})

if __name__ == "__main__":
    sys.exit(main())
