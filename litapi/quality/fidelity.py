"""What vectors of another precision are worth beside float32's, on pairs of pictures and captions.

Cosines say how far vectors moved, and a model can lose its way long before they say so: what counts
is whether it still finds the same things. So recall@1 decides, and the rest is reported.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np

from litapi.demo.judge import Vectors, retrieval, zero_shot
from litapi.scoring import Sigmoid

ALLOWED = 0.01  # recall@1 that may be lost, absolute, either way round
ONE_PAIR = 1  # of fewer than a hundred pairs one is more than that, and no evidence


@dataclass(frozen=True, slots=True)
class Judged:
    """Unit vectors of the pairs: row i of both belongs together. `classes` may be empty."""

    images: Vectors
    texts: Vectors
    classes: Vectors


@dataclass(frozen=True, slots=True)
class Fidelity:
    """The figures of float32 ("exact") and of another precision ("found")."""

    pairs: int
    cosine: dict[str, dict[str, float]]
    rank_correlation: float
    recall: dict[str, dict[str, dict[str, float]]]
    zero_shot: dict[str, float] | None
    score_change: dict[str, float]
    overflowed: int = 0  # vectors that are none: a number of theirs is not finite

    @classmethod
    def of(
        cls, exact: Judged, found: Judged, truth: list[int], logit_scale: float, logit_bias: float
    ) -> Self:
        """`truth` is the class of each picture; `logit_scale` as a checkpoint has it, not its log.
        Both must hold vectors of the same pairs in the same order."""
        found, overflowed = _finite(found)
        both = {"exact": exact, "found": found}
        cosines = [one.images @ one.texts.T for one in both.values()]
        sigmoid = Sigmoid(logit_scale, logit_bias)
        old, new = (sigmoid(one.astype(np.float64)) for one in cosines)
        changes = np.abs(new - old)
        return cls(
            pairs=len(exact.images),
            cosine={
                "text": _cosine(exact.texts, found.texts),
                "image": _cosine(exact.images, found.images),
            },
            rank_correlation=_rank_correlation(*cosines),
            recall={name: retrieval(one.images, one.texts) for name, one in both.items()},
            zero_shot={n: zero_shot(one.images, one.classes, truth) for n, one in both.items()}
            if truth
            else None,
            score_change={"mean": float(changes.mean()), "largest": float(changes.max())},
            overflowed=overflowed,
        )

    @property
    def lost(self) -> float:
        """The recall@1 that is lost, the worse of both ways; below 0 where it is gained."""
        exact, found = self.recall["exact"], self.recall["found"]
        return max(exact[way]["recall@1"] - found[way]["recall@1"] for way in exact)

    @property
    def passed(self) -> bool:
        within = round(self.lost * self.pairs) <= max(ONE_PAIR, ALLOWED * self.pairs)
        return within and not self.overflowed

    @property
    def sentence(self) -> str:
        if self.overflowed:
            return f"{self.overflowed} vectors hold numbers that are not finite; none may."
        change = "loses" if self.lost >= 0 else "gains"
        return (
            f"recall@1 {change} {abs(self.lost):.2%} of {self.pairs} pairs; "
            f"{ALLOWED:.0%} may be lost."
        )

    def lines(self) -> list[str]:
        exact, found = self.recall["exact"], self.recall["found"]
        cosines = [
            f"cosine, {kind}: mean {figure['mean']:.6f}, worst {figure['worst']:.6f}"
            for kind, figure in self.cosine.items()
        ]
        recalls = [
            f"recall, {way.replace('_', ' ')}: "
            + ", ".join(f"@{k[7:]} {exact[way][k]:.4f} → {found[way][k]:.4f}" for k in exact[way])
            for way in exact
        ]
        mean, largest = self.score_change["mean"], self.score_change["largest"]
        lines = [
            *cosines,
            f"rank correlation of similarities: {self.rank_correlation:.6f}",
            *recalls,
            f"/score: changes by {mean:.2e} on average, {largest:.2e} at most",
        ]
        if self.zero_shot:
            shown = f"{self.zero_shot['exact']:.4f} → {self.zero_shot['found']:.4f}"
            lines.insert(-1, f"zero-shot accuracy: {shown}")
        return lines

    def fields(self) -> dict[str, Any]:
        return asdict(self)


def _finite(found: Judged) -> tuple[Judged, int]:
    """With zeros, which find nothing, in place of vectors that are none; and how many those are."""
    parts = (found.images, found.texts, found.classes)
    sound = [np.isfinite(part).all(axis=-1, keepdims=True) for part in parts]
    clean = [np.where(rows, part, 0) for rows, part in zip(sound, parts, strict=True)]
    return Judged(*clean), sum(int((~rows).sum()) for rows in sound)


def _cosine(exact: Vectors, found: Vectors) -> dict[str, float]:
    rows = (exact.astype(np.float64) * found).sum(axis=-1)
    return {"mean": float(rows.mean()), "worst": float(rows.min())}


def _rank_correlation(exact: Vectors, found: Vectors) -> float:
    """Spearman's, of all similarities of pictures with captions."""
    old, new = (one.ravel().argsort(kind="stable").argsort() for one in (exact, found))
    return float(np.corrcoef(old, new)[0, 1])
