"""The dashboard as one picture, drawn from a running Prometheus, where there is no Grafana.

    python -m deploy.grafana.preview --prometheus http://localhost:9090 dashboard.png

It asks the same questions as the dashboard and lays the charts out as the dashboard does.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import httpx

from deploy.grafana.dashboard import Dashboard, Panel

POINTS = 120
FORMATS: dict[str, Callable[[float], str]] = {
    "bytes": lambda value: f"{value / (1 << 20):.4g} MiB",
    "percentunit": lambda value: f"{100 * value:g} %",
    "s": lambda value: f"{1e3 * value:g} ms" if value < 1 else f"{value:g} s",
}


class PrometheusError(Exception):
    """Prometheus refused a question; the text is its own."""


class Prometheus:
    """A running Prometheus, asked over HTTP."""

    def __init__(self, url: str) -> None:
        self._client = httpx.Client(base_url=url, timeout=30)

    def range(self, expression: str, seconds: float) -> list[dict[str, Any]]:
        """The series of the last `seconds`, each with its labels and its (time, value) pairs.

        Raises:
            PrometheusError: it does not understand the expression.
        """
        now = time.time()
        span = {"start": now - seconds, "end": now, "step": seconds / POINTS}
        asked: dict[str, str | float] = {"query": expression, **span}
        answer = self._client.get("/api/v1/query_range", params=asked).json()
        if answer["status"] != "success":
            raise PrometheusError(f"{answer['error']}: {expression}")
        found: list[dict[str, Any]] = answer["data"]["result"]
        return found


def draw(prometheus: Prometheus, dashboard: Dashboard, seconds: float, path: str) -> None:
    """Draw every panel into one PNG."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    rows = max(panel.place[1] + panel.place[3] for panel in dashboard.panels)
    figure = pyplot.figure(figsize=(18, rows * 0.42))
    for title, y in dashboard.headings:
        figure.text(0.01, 1 - (y + 0.8) / rows, title, fontsize=15, weight="bold")
    for panel in dashboard.panels:
        x, y, width, height = panel.place
        box = (
            x / 24 + 0.045,
            1 - (y + height - 1.1) / rows,
            width / 24 - 0.06,
            (height - 2.1) / rows,
        )
        _draw_panel(figure.add_axes(box), prometheus, panel, seconds)
    figure.savefig(path, dpi=70)


def _draw_panel(axes: Any, prometheus: Prometheus, panel: Panel, seconds: float) -> None:
    drawn = 0
    for expression, legend in panel.queries:
        for series in prometheus.range(expression, seconds):
            times = [float(at) - time.time() for at, _ in series["values"]]
            values = [float(value) for _, value in series["values"]]
            axes.plot(times, values, lw=1.2, label=filled(legend, series["metric"]))
            drawn += 1
    axes.set_title(panel.title, fontsize=11, loc="left")
    axes.set_xlim(-seconds, 0)
    axes.set_ylim(0, 1.35 * axes.get_ylim()[1])  # the legend stands above the curves
    axes.tick_params(labelsize=8)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g} s")
    write = FORMATS.get(panel.unit, "{:g}".format)
    axes.yaxis.set_major_formatter(lambda value, _: write(value))
    axes.grid(alpha=0.3)
    if drawn:
        axes.legend(fontsize=7, loc="upper left", ncols=2, framealpha=0.6)
    else:
        axes.text(0.5, 0.5, "no data", transform=axes.transAxes, ha="center", color="grey")


def filled(legend: str, labels: Mapping[str, str]) -> str:
    """A legend such as `{{kind}} mean` with the labels of a series put in."""
    return re.sub(r"\{\{\s*(\w+)\s*\}\}", lambda found: labels.get(found[1], ""), legend)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser("python -m deploy.grafana.preview", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("png")
    parser.add_argument("--prometheus", default="http://localhost:9090")
    parser.add_argument("--seconds", type=float, default=1800, help="how far back")
    parser.add_argument("--interval", default="1m", help="over which rates are taken")
    options = parser.parse_args(arguments)
    dashboard = Dashboard.read(options.interval)
    draw(Prometheus(options.prometheus), dashboard, options.seconds, options.png)
    return 0


if __name__ == "__main__":
    sys.exit(main())
