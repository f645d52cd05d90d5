"""The quality gate: the towers as they would be served, beside float32, on the same pairs.

The precisions with a name in 8 bits, and float16, must pass it on the checkpoint they are served
with. Both sides are computed on the same device, one tower after the other, so no more memory is
needed than serving takes in float32. How many drawn pairs are judged depends on what one costs.

    python -m litapi.quality.gate     settings as JSON on standard input, figures as JSON on output
"""

from __future__ import annotations

import contextlib
import gc
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from litapi.checkpoint import Checkpoint, CheckpointError
from litapi.demo.judge import Vectors
from litapi.logs import configure
from litapi.messages import KINDS, Kind
from litapi.model.pixels import PixelMaker
from litapi.model.served import compiles, image_encoder, precision_of, text_encoder
from litapi.model.tokens import Tokenizer
from litapi.quality.fidelity import Fidelity, Judged
from litapi.quality.pairs import Pairs
from litapi.settings import Settings, SettingsError

GFLOP = {"cpu": 5_000.0, "cuda": 1_000_000.0}  # of one side: a minute or two, and seconds
FEWEST, MOST = 48, 400  # drawn pairs
BATCH = {"cpu": 8, "cuda": 64}
EXACT = {"precision": "float32", "text_precision": "", "image_precision": "", "compile": "off"}


@dataclass(frozen=True, slots=True)
class Gate:
    """Judges one checkpoint on one device, as `settings` would serve it."""

    settings: Settings
    checkpoint: Checkpoint
    device: str

    def arithmetic(self) -> dict[Kind, str]:
        """The precision of each tower. Raises CheckpointError, which names the option."""
        return {kind: precision_of(self.settings, kind, self.device) for kind in KINDS}

    def judge(self) -> Fidelity:
        """Compute and compare. Raises CheckpointError, or SettingsError for wrong pairs."""
        precisions = self.arithmetic()
        pairs = self._pairs()
        items = self._items(pairs)
        plain = self.settings.model_copy(update=EXACT)
        exact = {kind: self._vectors(kind, items[kind], plain) for kind in KINDS}
        compiled = compiles(self.settings, self.device)
        found = {
            kind: exact[kind]
            if precisions[kind] == "float32" and not compiled
            else self._vectors(kind, items[kind], self.settings)
            for kind in KINDS
        }
        scale, bias = self.checkpoint.logit_scale, self.checkpoint.logit_bias
        return Fidelity.of(_judged(exact), _judged(found), pairs.truth, scale, bias)

    def _pairs(self) -> Pairs:
        if self.settings.pairs:
            return Pairs.of_folder(Path(self.settings.pairs))
        each = self.checkpoint.text_gflop + self.checkpoint.image_gflop
        affordable = int(GFLOP[_kind_of(self.device)] / each)
        return Pairs.drawn(min(max(affordable, FEWEST), MOST))

    def _items(self, pairs: Pairs) -> dict[Kind, Any]:
        """Model input: ids of captions and then prompts, and pixels."""
        tokenizer, maker = Tokenizer.load(self.checkpoint), PixelMaker(self.checkpoint)
        patches = self.settings.max_num_patches
        return {
            "text": tokenizer.encode([*pairs.captions, *pairs.prompts]).ids,
            "image": [maker.make(picture, patches) for picture in pairs.pictures],
        }

    def _vectors(self, kind: Kind, items: Any, settings: Settings) -> Vectors:
        load = text_encoder if kind == "text" else image_encoder
        encoder: Any = load(settings, self.checkpoint, self.device, settings.threads)
        step = BATCH[_kind_of(self.device)]
        rows = [encoder.embed(items[start : start + step]) for start in range(0, len(items), step)]
        del encoder
        gc.collect()  # a compiled tower is held by cycles, and the next one needs the room
        return np.concatenate(rows)


def _kind_of(device: str) -> str:
    return "cpu" if device == "cpu" else "cuda"


def _judged(vectors: dict[Kind, Vectors]) -> Judged:
    count = len(vectors["image"])
    return Judged(vectors["image"], vectors["text"][:count], vectors["text"][count:])


def main() -> int:
    """Judge for another process, which must not load torch itself."""
    asked = orjson.loads(sys.stdin.buffer.read())
    settings = Settings.model_validate(asked["settings"])
    configure(settings)
    try:
        folder, name, revision = asked["folder"], asked["name"], asked["revision"]
        checkpoint = Checkpoint.open(folder, name, revision, settings.compile_folder)
        with contextlib.redirect_stdout(sys.stderr):  # libraries print progress; the answer is JSON
            fidelity = Gate(settings, checkpoint, asked["device"]).judge()
        answer: dict[str, Any] = fidelity.fields()
    except (CheckpointError, SettingsError) as error:
        answer = {"refused": str(error)}
    sys.stdout.buffer.write(orjson.dumps(answer))
    return 0


if __name__ == "__main__":
    sys.exit(main())
