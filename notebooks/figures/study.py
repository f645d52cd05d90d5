"""One checkpoint in every precision that this device computes in, on the same pairs.

The quality gate (`litapi.quality.gate`) says yes or no; this keeps the vectors, to look at how they
moved and whose neighbours changed. `litapi.quality.fidelity` and `litapi.demo.judge` judge them.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from bench.load.summary import NOTHING
from litapi import Engine
from litapi.checkpoint import Checkpoint, CheckpointError
from litapi.demo.judge import ranks
from litapi.model.precision import PRECISIONS
from litapi.quality.fidelity import Fidelity, Judged
from litapi.quality.pairs import Pairs
from litapi.settings import Settings
from notebooks.figures.gallery import Noted
from notebooks.figures.table import Table

EXACT = "float32"
CUTS = (1, 2, 3, 5, 10, 20)
COLUMNS = (
    "precision", "cosine text, worst", "cosine image, worst", "recall@1 text → image",
    "recall@1 image → text", "rank correlation", "gate",
)  # fmt: skip


@dataclass(slots=True)
class Study:
    """`vectors` by precision, `refused` why others are not there; float32 comes first."""

    checkpoint: Checkpoint
    pairs: Pairs
    vectors: dict[str, Judged] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, checkpoint: Checkpoint, pairs: Pairs) -> Study:
        """Embed all pairs in all precisions, one engine after the other."""
        study, cut = cls(checkpoint, pairs), len(pairs.captions)
        for precision in PRECISIONS:
            try:
                with opened(checkpoint, precision) as engine:
                    texts = engine.texts([*pairs.captions, *pairs.prompts])
                    images = engine.images(pairs.sources)
            except CheckpointError as error:
                study.refused[precision] = str(error)
            else:
                study.vectors[precision] = Judged(images, texts[:cut], texts[cut:])
        return study

    def fidelity(self, precision: str) -> Fidelity:
        """The figures of a precision beside float32's."""
        exact, found = self.vectors[EXACT], self.vectors[precision]
        scale, bias = self.checkpoint.logit_scale, self.checkpoint.logit_bias
        return Fidelity.of(exact, found, self.pairs.truth, scale, bias)

    def table(self) -> Table:
        """A row for each precision."""
        rows = [_row(name, self.fidelity(name)) for name in self.vectors]
        missing = [[name, *[NOTHING] * 5, "refused"] for name in self.refused]
        return Table(COLUMNS, [*rows, *missing])

    def shifts(self, kind: str) -> dict[str, npt.NDArray[np.float64]]:
        """1 − cosine with float32's vector, of each item of "images" or "texts"."""
        exact = getattr(self.vectors[EXACT], kind)
        return {
            name: np.maximum(1 - (exact.astype(np.float64) * getattr(one, kind)).sum(-1), 1e-9)
            for name, one in self.vectors.items()
            if name != EXACT
        }

    def recalls(self) -> dict[str, tuple[tuple[int, ...], list[float]]]:
        """Text → image recall at a few depths, as a curve for each precision."""
        return {
            name: (CUTS, [float((ranks(one.texts, one.images) < k).mean()) for k in CUTS])
            for name, one in self.vectors.items()
        }

    def worst(self, precision: str, many: int = 3) -> dict[str, list[Noted]]:
        """The captions that lost most places; each with what float32 and `precision` find first."""
        exact, found = self.vectors[EXACT], self.vectors[precision]
        fall = ranks(found.texts, found.images) - ranks(exact.texts, exact.images)
        shift = 1 - (exact.texts * found.texts).sum(-1)
        order = np.lexsort((-shift, -fall))[:many]
        return {f"“{self.pairs.captions[i]}”": self._answers(int(i), precision) for i in order}

    def _answers(self, query: int, precision: str) -> list[Noted]:
        pictures = self.pairs.pictures
        noted = [(pictures[query], "the right one")]
        for name in (EXACT, precision):
            one = self.vectors[name]
            scores = one.images @ one.texts[query]
            first = np.argsort(-scores)[:2]
            noted += [(pictures[i], f"{name}: {scores[i]:.3f}") for i in first]
        return noted


def opened(checkpoint: Checkpoint, precision: str) -> Engine:
    """What a server on the CPU would serve, but for its quality gate: its verdict is shown here."""
    asked = {"precision": precision, "devices": "cpu", "cache": "off"}
    return Engine(Settings.read(asked, {}), checkpoint)


def _row(name: str, judged: Fidelity) -> list[str]:
    found = judged.recall["found"]
    return [
        name,
        *(f"{judged.cosine[kind]['worst']:.6f}" for kind in ("text", "image")),
        *(f"{found[way]['recall@1']:.3f}" for way in ("text_to_image", "image_to_text")),
        f"{judged.rank_correlation:.6f}",
        "passed" if judged.passed else "failed",
    ]
