"""int8 for OpenVINO: static scales, found by NNCF on pictures and texts.

A scale that is fixed when the tower is made depends on no neighbour, so rows keep their bits in any
company. What is calibrated on is the pairs of `--pairs`, else the drawn ones; their digest is in
the tower's key, and the digest of the scales in what it says of its arithmetic.
"""

from __future__ import annotations

import hashlib
import logging
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from litapi.checkpoint import Checkpoint, CheckpointError
from litapi.messages import Kind
from litapi.model.engines.converted import Converted
from litapi.model.engines.openvino_engine import OpenVinoImages
from litapi.model.engines.runtime import openvino
from litapi.model.engines.slots import Slot
from litapi.model.pixels import PixelMaker
from litapi.model.tokens import Tokenizer
from litapi.quality.pairs import Pairs, captioned

log = logging.getLogger("siglit.calibration")

GFLOP = 2_500.0  # of calibrating one tower, twice over: a minute or two
FEWEST, MOST = 32, 128
DRAWN = 800  # the last of these: the gate judges the first, and should not judge what was seen here
# What sees one pooled row an item gains nothing from int8 and loses most: heads, and of the last
# text layer all but keys and values. Patches are few numbers, and every error of theirs stays.
KEPT = (r".*body\.(head|norm)\b.*", r".*embedding.*")
KEPT_OF_LAST_TEXT = (r".*layers\.{last}\.self_attn\.(q|out)_proj.*", r".*layers\.{last}\.mlp.*")
MISSING = (
    "On a CPU int8 is calibrated by NNCF, which is not installed: pip install -r "
    "requirements-int8.txt, or serve a folder in which a calibrated tower is kept."
)


@dataclass(frozen=True, slots=True)
class Calibration:
    """The last pairs of a folder, or of the drawn ones."""

    pairs: str = ""
    max_num_patches: int = 0

    def digest(self, checkpoint: Checkpoint, kind: Kind) -> str:
        """Of everything that is calibrated on. Raises SettingsError where there are no pairs."""
        count = _count(checkpoint, kind)
        said = f"{count} {self.max_num_patches} ".encode()
        if not self.pairs:
            return hashlib.sha256(said + b"drawn").hexdigest()
        paths = captioned(Path(self.pairs))[-count:]
        files = [path if kind == "image" else path.with_suffix(".txt") for path in paths]
        digests = [hashlib.sha256(file.read_bytes()).digest() for file in files]
        return hashlib.sha256(said + b"".join(digests)).hexdigest()

    def quantized(self, checkpoint: Checkpoint, kind: Kind, plain: Converted) -> Converted:
        """`plain` in int8, whose model is changed. Raises CheckpointError where NNCF is missing."""
        nncf = _nncf()
        inputs = self._inputs(checkpoint, kind, plain)
        log.info("calibrating the %s tower on %d items", kind, len(inputs))
        model = nncf.quantize(
            plain.model,
            nncf.Dataset(inputs),
            model_type=nncf.ModelType.TRANSFORMER,
            subset_size=len(inputs),
            ignored_scope=nncf.IgnoredScope(patterns=_kept(plain.model, kind), validate=False),
        )
        return replace(plain, model=model, scales=scales_of(model))

    def _inputs(self, checkpoint: Checkpoint, kind: Kind, plain: Converted) -> list[Any]:
        """Of the graph, item by item."""
        pairs = self._pairs(_count(checkpoint, kind))
        if kind == "text":
            ids = Tokenizer.load(checkpoint).encode(pairs.captions).ids
            return [ids[row : row + 1] for row in range(len(ids))]
        maker, tower = PixelMaker(checkpoint), OpenVinoImages(plain, "float32")
        made = (maker.make(picture, self.max_num_patches) for picture in pairs.pictures)
        return [dict(enumerate(tower.inputs([pixels], Slot()))) for pixels in made]

    def _pairs(self, count: int) -> Pairs:
        whole = Pairs.of_folder(Path(self.pairs)) if self.pairs else Pairs.drawn(DRAWN)
        return replace(whole, pictures=whole.pictures[-count:], captions=whole.captions[-count:])


def _count(checkpoint: Checkpoint, kind: Kind) -> int:
    gflop = checkpoint.text_gflop if kind == "text" else checkpoint.image_gflop
    return min(max(int(GFLOP / gflop), FEWEST), MOST)


def _kept(model: Any, kind: Kind) -> list[str]:
    """Patterns of the nodes that keep their numbers."""
    if kind == "image":
        return [*KEPT]
    names = " ".join(node.get_friendly_name() for node in model.get_ops())
    last = max(map(int, re.findall(r"body\.layers\.(\d+)\.", names)))
    return [*KEPT, *(pattern.format(last=last) for pattern in KEPT_OF_LAST_TEXT)]


def scales_of(model: Any) -> str:
    """The digest of every number that quantizing put into the graph."""
    found = hashlib.sha256()
    for node in model.get_ordered_ops():
        if node.get_type_name() == "FakeQuantize":
            for source in node.input_values()[1:]:
                found.update(np.ascontiguousarray(source.get_node().data).tobytes())
    return found.hexdigest()


def _nncf() -> Any:
    openvino()  # first, for without its telemetry NNCF has none either
    try:
        import nncf
    except ImportError:
        raise CheckpointError(MISSING) from None
    nncf.set_log_level(logging.ERROR)
    return nncf
