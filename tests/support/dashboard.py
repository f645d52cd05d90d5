"""The dashboard as data: its panels and the questions they ask of Prometheus."""

import json
from dataclasses import dataclass
from typing import Any

from bench.rig.server_process import ROOT

FILE = ROOT / "deploy" / "grafana" / "dashboard.json"


@dataclass(frozen=True, slots=True)
class Panel:
    """One chart: `queries` are (expression, legend) with Grafana's own variables filled in."""

    title: str
    unit: str
    place: tuple[int, int, int, int]  # x, y, width, height in the dashboard's grid
    queries: tuple[tuple[str, str], ...]


def panels(interval: str) -> list[Panel]:
    """All charts, for all instances, with rates over `interval`, as in `30s`."""
    whole = json.loads(FILE.read_text())["panels"]
    return [_panel(one, interval) for one in whole if one["type"] != "row"]


def _panel(panel: dict[str, Any], interval: str) -> Panel:
    grid = panel["gridPos"]
    queries = [(_filled(t["expr"], interval), t["legendFormat"]) for t in panel["targets"]]
    unit = panel["fieldConfig"]["defaults"]["unit"]
    return Panel(panel["title"], unit, (grid["x"], grid["y"], grid["w"], grid["h"]), tuple(queries))


def _filled(expression: str, interval: str) -> str:
    return expression.replace("$__rate_interval", interval).replace("$instance", ".+")
