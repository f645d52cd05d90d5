"""Every tower × precision × number of threads × batch of a plan, measured.

A series is one tower in one precision with so many threads, loaded once. In each round of it the
ceiling is measured and then every batch, so a share of the ceiling is taken within one round. What
is timed is `embed` as a worker calls it: ids or levels on the host to vectors on the host, moves to
and from the device included. What a machine refuses, or would take too long for, is a row too.

The table of either command has a column for each figure that was measured. A row of
`bench.offline.precision` holds all its batches; it is several lines of the table.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import torch
from tqdm import tqdm

from bench.load.summary import NOTHING
from bench.offline.stopwatch import Ceiling, EnergyMeter, multiplied, per_second
from bench.offline.tower import Tower
from bench.rig.command import Spread, markdown, ratio
from litapi.checkpoint import Checkpoint, CheckpointError
from litapi.model.encoder import choose_precision

Row = dict[str, Any]  # as JSON holds it: what was measured, or "refused" and why


@dataclass(frozen=True, slots=True)
class Plan:
    """What is measured: batches of each tower, and `longest`, the seconds a batch may take."""

    batches: Mapping[str, Sequence[int]]
    precisions: Sequence[str]
    threads: Sequence[int]
    device: str = "cpu"
    compiled: bool = False
    engine: str = "auto"
    rounds: int = 3
    seconds: float = 1.0
    longest: float = 20.0


@dataclass(slots=True)
class Point:
    """One batch of a series, and its figures, one of each round."""

    batch: int
    embed: Callable[[], object]
    rates: list[float] = field(default_factory=list)  # items a second
    watts: list[float] = field(default_factory=list)
    peak_bytes: int = 0

    def measure(self, device: torch.device, meter: EnergyMeter, seconds: float) -> None:
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        before, start = meter.joules(), perf_counter()
        self.rates.append(self.batch * per_second(self.embed, device, seconds))
        after, elapsed = meter.joules(), perf_counter() - start
        if before is not None and after is not None:
            self.watts.append((after - before) / elapsed)
        if device.type == "cuda":
            self.peak_bytes = max(self.peak_bytes, torch.cuda.max_memory_allocated(device))

    def fields(self, flop: int, ceilings: Sequence[float]) -> Row:
        """As JSON holds it; `flop` is of an item, `ceilings` are GFLOP/s of the same rounds."""
        reached = [rate * flop / 1e9 for rate in self.rates]
        row: Row = {
            "batch": self.batch,
            "items_per_s": Spread.of(self.rates).fields(),
            "gflop_per_item": round(flop / 1e9, 4),
            "gflop_per_s": round(Spread.of(reached).median, 2),
            "ceiling_gflop_per_s": round(Spread.of(ceilings).median, 2),
            "of_ceiling": round(ratio(reached, ceilings), 4),
        }
        if self.peak_bytes:
            row["peak_memory_mb"] = round(self.peak_bytes / 1e6)
        if self.watts:
            row["watts"] = Spread.of(self.watts).fields()
            row["joules_per_item"] = round(ratio(self.watts, self.rates), 4)
        return row


class Series:
    """One tower in one precision with so many threads, loaded."""

    def __init__(self, tower: Tower, plan: Plan, precision: str) -> None:
        """Raises RuntimeError where the device does not multiply such numbers."""
        self._tower = tower
        self._plan = plan
        self._device = torch.device(plan.device)
        self._ceiling = Ceiling(multiplied(precision), self._device)
        self._meter = EnergyMeter(self._device)

    def rows(self, batches: Sequence[int]) -> list[Row]:
        points, refused = self._warm(sorted(batches))
        ceilings = []
        for _ in range(self._plan.rounds if points else 0):
            ceilings.append(self._ceiling.measure())
            for point in points:
                point.measure(self._device, self._meter, self._plan.seconds)
        return [*(point.fields(self._tower.flop, ceilings) for point in points), *refused]

    def _warm(self, batches: Sequence[int]) -> tuple[list[Point], list[Row]]:
        """Run each batch once, from the smallest up to where the machine gives in."""
        points: list[Point] = []
        took = 0.0  # seconds of the batch before
        for batch in batches:
            expected = took * batch / points[-1].batch if points else 0.0
            if expected > self._plan.longest:
                reason = f"would take about {expected:.0f} s, {self._plan.longest:g} are allowed"
                return points, [{"batch": batch, "refused": reason}]
            point = Point(batch, self._tower.batch(batch))
            try:
                if not points:
                    point.embed()  # the very first run also sets things up
                took = 1 / per_second(point.embed, self._device, 0.0)
            except RuntimeError as error:  # out of memory, or no kernel for it
                return points, [{"batch": batch, "refused": first_line(error)}]
            points.append(point)
        return points, []


def sweep(checkpoint: Checkpoint, plan: Plan) -> list[Row]:
    """All rows of a plan, in its order."""
    todo = [(tower, precision) for tower in plan.batches for precision in plan.precisions]
    rows: list[Row] = []
    for tower, precision in tqdm(todo, desc="towers", unit="tower", leave=False, disable=None):
        rows += precision_rows(checkpoint, plan, tower, precision)
    return rows


def precision_rows(checkpoint: Checkpoint, plan: Plan, tower: str, precision: str) -> list[Row]:
    """Rows of all numbers of threads; a precision that is refused is one row."""
    name = {"tower": tower, "precision": precision}
    rows: list[Row] = []
    for threads in plan.threads:
        clear(plan.device)
        try:
            choose_precision(precision, plan.device, plan.engine)
            options = (precision, threads, plan.compiled, plan.engine)
            series = Series(Tower(checkpoint, tower, plan.device, *options), plan, precision)
        except (CheckpointError, RuntimeError) as error:
            return [*rows, name | {"refused": first_line(error)}]
        found = series.rows(plan.batches[tower])
        rows += [name | {"threads": threads or torch.get_num_threads()} | row for row in found]
    return rows


def clear(device: str) -> None:
    """Let the tower before go: a compiled one is held by cycles."""
    gc.collect()
    torch.compiler.reset()  # what was compiled for other threads would count against a limit
    if device != "cpu":
        torch.cuda.empty_cache()


def first_line(error: Exception) -> str:
    """Of what it says, for libraries say much."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:160]


def _recalls(row: Row) -> str:
    found = row["demo_quality"]["recall"]["found"].values()
    return " / ".join(f"{way['recall@1']:.3f}" for way in found)


COLUMNS: Mapping[str, Callable[[Row], object]] = {
    "tower": lambda row: row["tower"],
    "precision": lambda row: _precision(row),
    "threads": lambda row: row["threads"],
    "batch": lambda row: row["batch"],
    "items/s": lambda row: row["items_per_s"]["median"],
    "least": lambda row: row["items_per_s"]["low"],
    "most": lambda row: row["items_per_s"]["high"],
    "GFLOP/item": lambda row: row["gflop_per_item"],
    "GFLOP/s": lambda row: row["gflop_per_s"],
    "ceiling": lambda row: row["ceiling_gflop_per_s"],
    "of ceiling": lambda row: f"{100 * row['of_ceiling']:.0f} %",
    "GPU MB": lambda row: row["peak_memory_mb"],
    "W": lambda row: row["watts"]["median"],
    "J/item": lambda row: row["joules_per_item"],
    "ratio": lambda row: f"{row['ratio']:.2f}",
    "cosine": lambda row: f"{row['cosine']['worst']:.6f}",
    "recall@1": _recalls,
    "MB": lambda row: row["resident_mb"],
    "of it own": lambda row: row["private_mb"],
    "load s": lambda row: f"{row['load_s']:.0f}",
}


def table(rows: Sequence[Row]) -> str:
    """The table, and below it what was refused and why."""
    return "\n".join([markdown(lines(rows)), *refusals(rows)])


def lines(rows: Sequence[Row]) -> list[Sequence[str]]:
    """The cells of the table, its head first."""
    measured = [one for row in rows for one in _measured(row)]
    cells = {name: [_cell(figure, line) for line in measured] for name, figure in COLUMNS.items()}
    shown = {name: column for name, column in cells.items() if {*column} - {NOTHING}}
    return [[*shown], *zip(*shown.values(), strict=True)]


def refusals(rows: Sequence[Row]) -> list[str]:
    return [f"refused  {_named(row)}: {row['refused']}" for row in rows if "refused" in row]


def _measured(row: Row) -> Iterator[Row]:
    if "batches" in row:
        yield from ({**row, "batch": name} | figures for name, figures in row["batches"].items())
    elif "refused" not in row:
        yield row


def _cell(figure: Callable[[Row], object], row: Row) -> str:
    try:
        value = figure(row)
    except KeyError:
        return NOTHING
    if not isinstance(value, float):
        return str(value)
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _named(row: Row) -> str:
    names = [row["tower"], _precision(row)]
    if "batch" in row:
        names += [f"{row['threads']} threads", f"batch {row['batch']}"]
    return ", ".join(names)


def _precision(row: Row) -> str:
    """With the engine, where the row says it."""
    return f"{row['precision']} {row.get('engine', '')}".rstrip()
