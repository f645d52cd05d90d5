"""int8 for OpenVINO: static scales, found by NNCF on pictures and texts.

A scale that is fixed when the tower is made depends on no neighbour, so rows keep their bits in any
company. It also cuts off what it has not seen. So half of what is calibrated on is the pairs of
`--pairs`, else the drawn ones, and half is noise. The digest of the pairs is in the tower's key,
and the digest of the scales in what it says of its arithmetic.
"""

from __future__ import annotations

import hashlib
import itertools
import logging
import re
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from io import StringIO
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
from litapi.model.probes import clouds, random_ids
from litapi.model.tokens import Tokenizer
from litapi.quality.pairs import Pairs, captioned

log = logging.getLogger("siglit.calibration")

GFLOP = 1_250.0  # of the pairs, twice over; with the noise a minute or two
FEWEST, MOST = 16, 64  # pairs, and as much noise
SEED = 5
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
    """The last pairs of a folder, or of the drawn ones, and as much noise as there may be pairs."""

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
        with redirect_stdout(StringIO()):  # where NNCF draws bars, and a command writes its output
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
        count = _count(checkpoint, kind)
        pairs = self._pairs(count)
        if kind == "text":
            own = Tokenizer.load(checkpoint).encode(pairs.captions).ids
            length = checkpoint.text_length
            tokens = np.linspace(2, length, count, dtype=int).tolist()
            noise = random_ids(tokens, checkpoint.vocabulary, length, SEED)
            return [row[np.newaxis] for row in np.concatenate([own, noise])]
        maker, tower = PixelMaker(checkpoint), OpenVinoImages(plain, "float32")
        pictures = itertools.chain(pairs.pictures, clouds(count, SEED))
        made = (maker.make(picture, self.max_num_patches) for picture in pictures)
        return [dict(enumerate(tower.inputs([pixels], Slot()))) for pixels in made]

    def _pairs(self, count: int) -> Pairs:
        whole = Pairs.of_folder(Path(self.pairs)) if self.pairs else Pairs.drawn(DRAWN)
        return replace(whole, pictures=whole.pictures[-count:], captions=whole.captions[-count:])


def _count(checkpoint: Checkpoint, kind: Kind) -> int:
    return min(max(int(GFLOP / checkpoint.gflop(kind)), FEWEST), MOST)


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
