"""What the systems of one tower came to: a row for each, and the targets of their ratios."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.offline.precision.system import BASELINE, Running, System
from bench.rig.rounds import Spread, Target, ratio
from bench.rig.table import markdown

Row = dict[str, Any]
MB = 1e6

# (precision, compiled, tower) → how many times as many items a second as the baseline
WANTED = {
    ("bfloat16", False, "image"): 1.5,
    ("bfloat16", False, "text"): 1.5,
    ("bfloat16", True, "image"): 1.7,
    ("bfloat16", True, "text"): 1.7,
    ("int8", True, "image"): 2.8,
    ("int8", True, "text"): 2.2,
}
COLUMNS = ("tower", "precision", "batch", "items/s", "least", "most", "ratio", "cosine", "recall@1",
           "MB", "of it own", "load s")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Measured:
    """One system beside the baseline of its tower. `quality` are the gate's figures, or None."""

    running: Running
    baseline: Running
    quality: Mapping[str, Any] | None

    def row(self) -> Row:
        """As JSON holds it."""
        system: System = self.running.system
        row: Row = {"tower": system.tower, "precision": system.precision}
        row["compiled"] = system.compiled
        if self.running.loaded is None:
            return {**row, "refused": self.running.refused}
        loaded = self.running.loaded
        row |= {
            "batches": {str(batch): self._figures(batch) for batch in self.running.rates},
            "resident_mb": round(loaded.resident / MB),
            "private_mb": round(loaded.private / MB),
            "load_s": round(loaded.seconds, 1),
            "cosine": self._cosine(),
        }
        return {**row, "demo_quality": self.quality} if self.quality else row

    def ratio(self, batch: int) -> float:
        """To the baseline, within the rounds."""
        return ratio(self.running.rates[batch], self.baseline.rates[batch])

    def _figures(self, batch: int) -> Row:
        rates = Spread.of(self.running.rates[batch]).fields()
        return {"items_per_s": rates, "ratio": round(self.ratio(batch), 3)}

    def _cosine(self) -> dict[str, float]:
        if self.running.loaded is None or self.baseline.loaded is None:
            raise ValueError("only what was loaded has vectors")
        rows = (self.running.loaded.vectors * self.baseline.loaded.vectors).sum(axis=-1)
        return {"mean": round(float(rows.mean()), 7), "worst": round(float(rows.min()), 7)}

    def targets(self) -> list[Target]:
        """What this system was meant to reach, at each batch; none where it was refused."""
        system = self.running.system
        wanted = WANTED.get((system.precision, system.compiled, system.tower))
        if wanted is None or self.running.loaded is None:
            return []
        return [
            Target(
                f"{system.tower} {system.name}, batch {batch}", self.ratio(batch), at_least=wanted
            )
            for batch in self.running.rates
        ]

    def impossible(self) -> str:
        """The line of a target that this machine cannot be held to; empty where there is none."""
        system = self.running.system
        wanted = WANTED.get((system.precision, system.compiled, system.tower))
        if wanted is None or self.running.loaded is not None:
            return ""
        why = self.running.refused
        return f"not possible here  {system.tower} {system.name} (≥ {wanted:g}): {why}"


def table(rows: Sequence[Row]) -> str:
    """For people; a refused system is named with its reason below."""
    cells = [list(COLUMNS)]
    for row in rows:
        for batch, figures in row.get("batches", {}).items():
            cells.append(_cells(row, batch, figures))
    refused = [f"refused: {_named(row)}: {row['refused']}" for row in rows if row.get("refused")]
    return "\n".join([markdown(cells), *refused])


def _cells(row: Row, batch: str, figures: Row) -> list[str]:
    rates = figures["items_per_s"]
    quality = row.get("demo_quality")
    recalls = quality["recall"]["found"].values() if quality else []
    return [
        row["tower"],
        _precision(row),
        batch,
        *(f"{rates[name]:.2f}" for name in ("median", "low", "high")),
        f"{figures['ratio']:.2f}",
        f"{row['cosine']['worst']:.6f}",
        " / ".join(f"{way['recall@1']:.3f}" for way in recalls) or "–",
        str(row["resident_mb"]),
        str(row["private_mb"]),
        f"{row['load_s']:.0f}",
    ]


def _named(row: Row) -> str:
    return f"{row['tower']} {_precision(row)}"


def _precision(row: Row) -> str:
    return f"{row['precision']}{' compiled' if row['compiled'] else ''}"


def baseline_of(tower: str) -> System:
    """What every system of a tower is compared with."""
    return System(tower, BASELINE)
