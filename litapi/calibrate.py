"""`python -m litapi calibrate`: the sigmoid and the threshold that fit somebody's own pairs.

Half of the pictures, with their captions, are fitted; the other half says what that is worth.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from litapi.calibration import Calibration, HeldOut
from litapi.embed import opened
from litapi.quality.fit import Matches, best_threshold, figures, fitted
from litapi.quality.pairs import Captioned, PairsError
from litapi.quality.source import Source
from litapi.scoring import HALF, Sigmoid
from litapi.settings import Settings, SettingsError

LEAST = 20  # pictures; of fewer a half says nothing


def calibrate(
    folder: Path, out: Path, share: float, url: str | None, key: str | None, settings: Settings
) -> Calibration:
    """Fit the pairs of `folder`, by the server at `url` or in this process, and write the file.

    Raises:
        SettingsError: the folder, the share or the file cannot be used.
        ClientError, CheckpointError, Refused: there are no vectors.
    """
    if not 0 < share < 1:
        raise SettingsError(f"--matching-share: lies between 0 and 1 (given: {share})")
    if not out.parent.is_dir():
        raise SettingsError(f"--out: there is no folder {out.parent}")
    try:
        captioned = Captioned.of(folder)
        if len(captioned.paths) < LEAST:
            raise PairsError(f"{folder} has {len(captioned.paths)} pictures; {LEAST} are needed")
        with opened(url, key, settings.model_copy(update={"calibration": ""})) as source:
            found = fit(captioned, source, share)
    except PairsError as error:
        raise SettingsError(f"--pairs: {error}") from None
    found.write(out)
    return found


def fit(captioned: Captioned, source: Source, share: float) -> Calibration:
    """Raises PairsError where nothing can be fitted to these."""
    own, space = source.sigmoid, source.space
    if own is None or space is None:
        raise SettingsError(f"--url: {source.url} does not say which space its vectors are from")
    texts, images = captioned.embedded(source.texts, source.pictures)
    pairs, held = Matches.split(texts, images, captioned.captions, captioned.owners, share)
    found = fitted(pairs)
    sigmoid = Sigmoid(_short(found.scale), _short(found.bias))
    threshold = _short(best_threshold(sigmoid(pairs.cosine), pairs))
    fewer = len(images) // 2
    return Calibration(
        model=source.name,
        space=space,
        scale=sigmoid.scale,
        bias=sigmoid.bias,
        threshold=threshold,
        matching_share=share,
        pictures=fewer,
        pairs=len(pairs),
        matching=int(pairs.match.sum()),
        heldout=HeldOut(
            pictures=len(images) - fewer,
            pairs=len(held),
            matching=int(held.match.sum()),
            model=figures(own, HALF, held),
            fitted=figures(sigmoid, threshold, held),
        ),
    )


def _short(number: float) -> float:
    """Without the last digits, in which vectors differ from run to run."""
    return float(f"{number:.5g}")


def lines(found: Calibration) -> Iterator[str]:
    held = found.heldout
    yield f"{found.pictures} pictures fitted, {held.pictures} held out"
    yield f"{found.matching_share:.1%} of the weight is on pairs that match"
    yield f"{'':<20}{'model':>10}{'fitted':>10}"
    for name in ("threshold", "log_loss", "f1", "calibration_error"):
        own, fitted = getattr(held.model, name), getattr(held.fitted, name)
        yield f"{name.replace('_', ' '):<20}{own:>10.4f}{fitted:>10.4f}"
