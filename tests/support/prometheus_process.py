"""A real Prometheus that scrapes one server every other second, with the rules that are shipped."""

import shutil
import subprocess
from pathlib import Path
from typing import Any, Self

import httpx
import yaml

from bench.rig.child import answers
from bench.rig.port import free_port
from tests.support.patience import awaited

RULES = Path(__file__).parent.parent.parent / "deploy" / "prometheus" / "rules.yaml"


class PrometheusProcess:
    """`with PrometheusProcess(folder, port) as prometheus:`; raises where it does not start."""

    def __init__(self, home: Path, target: int) -> None:
        self.url = f"http://127.0.0.1:{free_port()}"
        self._home = home
        self._target = target
        self._process: subprocess.Popen[bytes] | None = None

    @staticmethod
    def here() -> bool:
        """Whether the program is installed."""
        return shutil.which("prometheus") is not None

    def __enter__(self) -> Self:
        static = [{"targets": [f"127.0.0.1:{self._target}"]}]
        whole = {
            "global": {"scrape_interval": "2s", "evaluation_interval": "1s"},
            "rule_files": [str(RULES)],
            "scrape_configs": [{"job_name": "siglit", "static_configs": static}],
        }
        (self._home / "prometheus.yml").write_text(yaml.safe_dump(whole))
        command = [
            "prometheus",
            f"--config.file={self._home / 'prometheus.yml'}",
            f"--storage.tsdb.path={self._home / 'data'}",
            f"--web.listen-address={self.url.removeprefix('http://')}",
        ]
        with (self._home / "log").open("wb") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        self._await_ready()
        return self

    def _await_ready(self) -> None:
        try:
            awaited(answers(f"{self.url}/-/ready"))
        except TimeoutError:
            raise RuntimeError((self._home / "log").read_text()) from None

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def ask(self, expression: str) -> dict[str, Any]:
        """The answer to one question, now."""
        asked = {"query": expression}
        found: dict[str, Any] = httpx.get(
            f"{self.url}/api/v1/query", params=asked, timeout=60
        ).json()
        return found

    def await_value(self, expression: str, least: float) -> None:
        """Wait until the sum of what is asked for is at least so much."""
        awaited(lambda: self.total(expression) >= least)

    def total(self, expression: str) -> float:
        """The sum of what is asked for; 0 where there is nothing."""
        return sum(float(row["value"][1]) for row in self.ask(expression)["data"]["result"])

    def rules(self) -> list[dict[str, Any]]:
        """All rules with what became of their last evaluation."""
        groups = httpx.get(f"{self.url}/api/v1/rules", timeout=60).json()["data"]["groups"]
        return [rule for group in groups for rule in group["rules"]]
