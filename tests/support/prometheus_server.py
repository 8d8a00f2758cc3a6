"""A real Prometheus that scrapes what a test runs, with the rules of deploy/prometheus."""

import json
import shutil
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import pytest

from tests.contract.tree import ROOT
from tests.support.free_port import free_address

START_TIMEOUT_S = 60.0
ANSWER_TIMEOUT_S = 30.0
SCRAPE_INTERVAL_S = 1


class PrometheusServer:
    """Scrapes and evaluates every second; ended with the block."""

    def __init__(self, directory: Path, targets: Mapping[str, str]) -> None:
        """Prepares it; skips the test where Prometheus is not installed.

        Args:
            directory: for its configuration, data and log.
            targets: address by job.
        """
        binary = shutil.which("prometheus")
        if binary is None:
            pytest.skip("prometheus is not installed; `apt install prometheus`")
        directory.mkdir(parents=True, exist_ok=True)
        self._binary = binary
        self._directory = directory
        self._address = free_address()
        self._process: subprocess.Popen[bytes] | None = None
        jobs = [
            {"job_name": job, "static_configs": [{"targets": [address]}]}
            for job, address in targets.items()
        ]
        interval = f"{SCRAPE_INTERVAL_S}s"
        configuration = {
            "global": {"scrape_interval": interval, "evaluation_interval": interval},
            "rule_files": [str(ROOT / "deploy" / "prometheus" / "rules" / "*.yaml")],
            "scrape_configs": jobs,
        }
        # JSON is YAML.
        (directory / "prometheus.yml").write_text(json.dumps(configuration))

    def query(self, promql: str) -> dict[tuple[tuple[str, str], ...], float]:
        """Values of an instant query by labels, without the name."""
        found = self._get("query", query=promql)["result"]
        return {
            tuple(sorted((k, v) for k, v in one["metric"].items() if k != "__name__")): float(
                one["value"][1]
            )
            for one in found
        }

    def exemplars(self, promql: str, since_s: float) -> list[dict[str, Any]]:
        """Exemplars of a query's series since an instant, with `labels`, `value`, `timestamp`."""
        found = self._get("query_exemplars", query=promql, start=since_s, end=time.time() + 60)
        return [exemplar for series in found for exemplar in series["exemplars"]]

    def rules(self) -> list[dict[str, Any]]:
        """All rules as they are evaluated."""
        return [rule for group in self._get("rules")["groups"] for rule in group["rules"]]

    def _get(self, path: str, **parameters: object) -> Any:
        asked = urllib.parse.urlencode(parameters)
        with urllib.request.urlopen(
            f"http://{self._address}/api/v1/{path}?{asked}", timeout=ANSWER_TIMEOUT_S
        ) as answer:
            return json.load(answer)["data"]

    def __enter__(self) -> Self:
        with (self._directory / "prometheus.log").open("wb") as log:
            self._process = subprocess.Popen(
                [
                    self._binary,
                    f"--config.file={self._directory / 'prometheus.yml'}",
                    f"--storage.tsdb.path={self._directory / 'data'}",
                    f"--web.listen-address={self._address}",
                    "--enable-feature=exemplar-storage",
                ],
                stdout=log,
                stderr=log,
            )
        try:
            self._wait()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _wait(self) -> None:
        assert self._process is not None
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._is_ready():
            said = (self._directory / "prometheus.log").read_text()
            assert self._process.poll() is None, said
            assert time.monotonic() < deadline, said
            time.sleep(0.05)

    def _is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://{self._address}/-/ready", timeout=5):
                return True
        except OSError:
            return False

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(timeout=60)
            finally:
                self._process.kill()
                self._process.wait()
