"""A real Prometheus that scrapes one server every other second, with the rules that are shipped."""

import shutil
from pathlib import Path
from typing import Any, Self

import httpx
import yaml

from bench.rig.child import answers, child
from bench.rig.port import free_port
from tests.support.patience import awaited

RULES = Path(__file__).parent.parent.parent / "deploy" / "prometheus" / "rules.yaml"


class PrometheusProcess:
    """`with PrometheusProcess(folder, port) as prometheus:`; raises where it does not start."""

    def __init__(self, home: Path, target: int) -> None:
        self.url = f"http://127.0.0.1:{free_port()}"
        static = [{"targets": [f"127.0.0.1:{target}"]}]
        whole = {
            "global": {"scrape_interval": "2s", "evaluation_interval": "1s"},
            "rule_files": [str(RULES)],
            "scrape_configs": [{"job_name": "siglit", "static_configs": static}],
        }
        (home / "prometheus.yml").write_text(yaml.safe_dump(whole))
        command = [
            "prometheus",
            f"--config.file={home / 'prometheus.yml'}",
            f"--storage.tsdb.path={home / 'data'}",
            f"--web.listen-address={self.url.removeprefix('http://')}",
        ]
        self._running = child(command, answers(f"{self.url}/-/ready"))

    @staticmethod
    def here() -> bool:
        """Whether the program is installed."""
        return shutil.which("prometheus") is not None

    def __enter__(self) -> Self:
        self._running.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._running.__exit__(None, None, None)

    def ask(self, expression: str) -> dict[str, Any]:
        """The answer to one question, now."""
        answer = httpx.get(f"{self.url}/api/v1/query", params={"query": expression}, timeout=60)
        found: dict[str, Any] = answer.json()
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
