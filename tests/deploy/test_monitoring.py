"""Alerts and dashboard: what they ask for exists, means something, and is answered."""

import functools
import itertools
import re
import shutil
import subprocess
from collections.abc import Iterator
from random import Random

import httpx
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from bench.rig.server_process import ServerProcess
from litapi.demo.drawing import Scene, captions
from tests.support.dashboard import FILE, Panel, panels
from tests.support.patience import awaited
from tests.support.picture import picture
from tests.support.prometheus_process import RULES, PrometheusProcess

ROOT = RULES.parent.parent
GPU_ONLY = {"siglit_gpu_utilization_ratio", "siglit_gpu_memory_bytes"}
NAME = re.compile(r"(?<![a-z0-9_:/])(?:siglit|cache)_[a-z0-9_]+")
PANELS = panels("2m")
promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="no promtool (apt-get install prometheus)"
)


def expressions() -> list[str]:
    """Everything that rules and dashboard ask."""
    groups = yaml.safe_load(RULES.read_text())["groups"]
    rules = [rule["expr"] for group in groups for rule in group["rules"]]
    return rules + [expression for panel in PANELS for expression, _ in panel.queries]


NUMBERS = itertools.count()  # so that no work is known from before


def work(server: ServerProcess, rounds: int) -> None:
    """A little of everything: texts, pictures, hits and misses."""
    with httpx.Client(base_url=server.url, timeout=60) as client:
        for number in itertools.islice(NUMBERS, rounds):
            text = captions(Scene.random(Random(f"monitoring {number}")))[0]
            for path, body in (
                ("/embed_text", {"texts": [text, "a red circle"]}),
                ("/v1/embeddings", {"input": ["a red circle"]}),
            ):
                assert client.post(path, json=body).status_code == 200
            png = picture(10_000 + number)
            octets = {"content-type": "image/png"}
            assert client.post("/embed_image", content=png, headers=octets).status_code == 200


@pytest.fixture(scope="module")
def prometheus(
    server: ServerProcess, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[PrometheusProcess]:
    """One that has watched a server at work for a few seconds."""
    if not PrometheusProcess.here():
        pytest.skip("no prometheus (apt-get install prometheus)")
    work(server, 1)  # a series needs two values for a rate: the first is before the work
    with PrometheusProcess(tmp_path_factory.mktemp("prometheus"), server.port) as running:
        asked = 'siglit_requests_total{route="/embed_image"}'
        running.await_value(f"count_over_time({asked}[1m])", 2)
        before = running.total(asked)
        for done in range(1, 4):  # over several scrapes
            work(server, 3)
            running.await_value(asked, before + 3 * done)
        running.await_value("count_over_time(siglit:cache_hits:ratio[1m])", 1)
        yield running


def names(server: ServerProcess) -> set[str]:
    """What a Prometheus would find now."""
    families = text_string_to_metric_families(httpx.get(f"{server.url}/metrics", timeout=60).text)
    return {sample.name for family in families for sample in family.samples}


def test_every_name_that_is_asked_for_is_exposed(server: ServerProcess) -> None:
    """A renamed metric would leave an alert that never fires; only a GPU's may be missing here."""
    work(server, 1)
    awaited(lambda: "siglit_process_cpu_seconds" in names(server))  # looked at every 2 s
    exposed = names(server)
    asked = {name for expression in expressions() for name in NAME.findall(expression)}
    assert len(asked) > 20
    assert asked - exposed - GPU_ONLY == set()


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel.title)
def test_a_panel_shows_something(
    server: ServerProcess, prometheus: PrometheusProcess, panel: Panel
) -> None:
    """Each of its questions is understood and, without a GPU too, answered with numbers."""
    for expression, _ in panel.queries:
        answer = prometheus.ask(expression)
        assert answer["status"] == "success", answer
        if not GPU_ONLY & set(NAME.findall(expression)):
            assert numbers(prometheus, expression), expression
            awaited(functools.partial(shown, server, prometheus, expression))


def numbers(prometheus: PrometheusProcess, expression: str) -> list[float]:
    """What a question is answered with."""
    rows = prometheus.ask(expression)["data"]["result"]
    return [float(row["value"][1]) for row in rows]


def shown(server: ServerProcess, prometheus: PrometheusProcess, expression: str) -> bool:
    """Whether no answer is NaN, as a quantile is where nothing has happened in its window.

    Of classes one may have had no work.
    """
    enough = any if "class" in expression else all
    if enough(number == number for number in numbers(prometheus, expression)):
        return True
    work(server, 1)
    return False


def test_every_rule_is_evaluated_and_no_alert_fires(prometheus: PrometheusProcess) -> None:
    """On a healthy server that does its work."""
    rules = prometheus.rules()
    assert len(rules) == len(expressions()) - sum(len(panel.queries) for panel in PANELS)
    assert {rule["health"] for rule in rules} == {"ok"}, [r for r in rules if r["health"] != "ok"]
    assert [rule["name"] for rule in rules if rule.get("state") == "firing"] == []


def test_the_dashboard_lies_on_its_grid_without_overlap() -> None:
    """Grafana would move what overlaps; numbers and titles are given once."""
    cells: set[tuple[int, int]] = set()
    for panel in PANELS:
        x, y, width, height = panel.place
        own = {(i, j) for i in range(x, x + width) for j in range(y, y + height)}
        assert x + width <= 24
        assert not own & cells, panel.title
        cells |= own
    assert len({panel.title for panel in PANELS}) == len(PANELS)


def test_grafana_finds_its_source_and_its_dashboard() -> None:
    """The dashboard names the source by the uid that the provisioning gives it."""
    folder = ROOT / "grafana" / "provisioning"
    source = yaml.safe_load((folder / "datasources" / "prometheus.yaml").read_text())
    assert f'"uid": "{source["datasources"][0]["uid"]}"' in FILE.read_text()
    providers = yaml.safe_load((folder / "dashboards" / "siglit.yaml").read_text())["providers"]
    compose = yaml.safe_load((ROOT / "compose.yaml").read_text())
    mounts = compose["services"]["grafana"]["volumes"]
    assert f"./grafana/dashboard.json:{providers[0]['options']['path']}/dashboard.json:ro" in mounts


@promtool
@pytest.mark.parametrize(
    "arguments",
    [("check", "rules", "rules.yaml"), ("check", "config", "prometheus.yml"),
     ("test", "rules", "rules_test.yaml")],
    ids=" ".join,
)  # fmt: skip
def test_promtool_agrees(arguments: tuple[str, ...]) -> None:
    """The rules can be read, and each alert fires when it should and not before."""
    command = ["promtool", *arguments]
    done = subprocess.run(command, cwd=RULES.parent, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_alert_has_a_test_in_which_it_fires_and_one_in_which_it_does_not() -> None:
    """Or a threshold could be anything."""
    groups = yaml.safe_load(RULES.read_text())["groups"]
    alerts = {rule["alert"] for group in groups for rule in group["rules"] if "alert" in rule}
    tests = yaml.safe_load((RULES.parent / "rules_test.yaml").read_text())["tests"]
    cases = [case for test in tests for case in test["alert_rule_test"]]
    assert {case["alertname"] for case in cases if case.get("exp_alerts")} == alerts
    assert {case["alertname"] for case in cases if not case.get("exp_alerts")} == alerts
