"""The dashboard as data: its panels and the questions they ask of Prometheus."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

FILE = Path(__file__).parent / "dashboard.json"


@dataclass(frozen=True, slots=True)
class Panel:
    """One chart: `queries` are (expression, legend) with Grafana's own variables filled in."""

    title: str
    unit: str
    place: tuple[int, int, int, int]  # x, y, width, height in the dashboard's grid
    queries: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Dashboard:
    """All charts, and the headings between them as (title, y)."""

    panels: Sequence[Panel]
    headings: Sequence[tuple[str, int]]

    @classmethod
    def read(cls, interval: str, file: Path = FILE) -> Self:
        """The shipped one, for all instances, with rates over `interval`, as in `30s`."""
        whole = json.loads(file.read_text())["panels"]
        charts = [_panel(one, interval) for one in whole if one["type"] != "row"]
        headings = [(one["title"], one["gridPos"]["y"]) for one in whole if one["type"] == "row"]
        return cls(charts, headings)


def _panel(panel: dict[str, Any], interval: str) -> Panel:
    grid = panel["gridPos"]
    queries = [(_filled(t["expr"], interval), t["legendFormat"]) for t in panel["targets"]]
    unit = panel["fieldConfig"]["defaults"]["unit"]
    return Panel(panel["title"], unit, (grid["x"], grid["y"], grid["w"], grid["h"]), tuple(queries))


def _filled(expression: str, interval: str) -> str:
    return expression.replace("$__rate_interval", interval).replace("$instance", ".+")
