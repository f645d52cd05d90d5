"""`python -m litapi calibrate`: the sigmoid and the threshold that fit somebody's own pairs.

Half of the pictures, with their captions, are fitted; the other half says what that is worth.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from litapi.calibration import Calibration, HeldOut
from litapi.client import Client
from litapi.quality.captioned import Captioned, PairsError
from litapi.quality.logistic import fitted
from litapi.quality.matches import Bools, Matches, Places, halves, owned
from litapi.quality.reliability import best_threshold, figures
from litapi.quality.source import Array
from litapi.scoring import HALF, Sigmoid
from litapi.settings import Settings, SettingsError

LEAST = 20  # pictures; of fewer a half says nothing
SHARE = 0.05  # one label in twenty holds


@dataclass(frozen=True, slots=True)
class Origin:
    """Where vectors come from, and what the model itself makes of their cosines."""

    model: str
    space: str
    sigmoid: Sigmoid
    texts: Callable[[Sequence[str]], Array]
    pictures: Callable[[Sequence[bytes]], Array]


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
        with _origin(url, key, settings) as origin:
            found = fit(captioned, origin, share)
    except PairsError as error:
        raise SettingsError(f"--pairs: {error}") from None
    found.write(out)
    return found


def fit(captioned: Captioned, origin: Origin, share: float) -> Calibration:
    """Raises PairsError where nothing can be fitted to these."""
    texts, images = captioned.embedded(origin.texts, origin.pictures)
    first, match = owned(captioned.captions, captioned.owners)
    ours, theirs = halves(len(images))
    fit_on = _half(texts[first], images, match, ours, share)
    held = _half(texts[first], images, match, theirs, share)
    sigmoid = fitted(fit_on)
    threshold = best_threshold(sigmoid(fit_on.cosine), fit_on)
    return Calibration(
        model=origin.model,
        space=origin.space,
        scale=sigmoid.scale,
        bias=sigmoid.bias,
        threshold=threshold,
        matching_share=share,
        pictures=len(ours),
        pairs=len(fit_on),
        matching=int(fit_on.match.sum()),
        heldout=HeldOut(
            pictures=len(theirs),
            pairs=len(held),
            matching=int(held.match.sum()),
            model=figures(origin.sigmoid, HALF, held),
            fitted=figures(sigmoid, threshold, held),
        ),
    )


def _half(texts: Array, images: Array, match: Bools, half: Places, share: float) -> Matches:
    """The pairs of these pictures and the captions that any of them has."""
    said = match[:, half].any(axis=1)
    cosine = texts[said].astype(np.float64) @ images[half].T
    return Matches.of(cosine, match[np.ix_(said, half)], share)


@contextmanager
def _origin(url: str | None, key: str | None, settings: Settings) -> Iterator[Origin]:
    if url:
        with Client(url, key, priority="bulk") as client:
            model = client.info()["model"]
            own = Sigmoid(model["logit_scale"], model["logit_bias"])
            yield Origin(
                model["name"], model["space"], own, client.embed_texts, client.embed_images
            )
        return
    from litapi.engine import Engine

    with Engine.of(settings.model_copy(update={"calibration": ""})) as engine:
        checkpoint = engine.checkpoint
        own = Sigmoid(checkpoint.logit_scale, checkpoint.logit_bias)
        yield Origin(checkpoint.name, checkpoint.space, own, engine.texts, engine.images)


def lines(found: Calibration) -> Iterator[str]:
    """What was found, as a table for people."""
    held = found.heldout
    yield f"{found.pictures} pictures fitted, {held.pictures} held out"
    yield f"{found.matching_share:.1%} of the weight is on pairs that match"
    yield f"{'':<20}{'model':>10}{'fitted':>10}"
    for name in ("threshold", "log_loss", "f1", "calibration_error"):
        own, fitted = getattr(held.model, name), getattr(held.fitted, name)
        yield f"{name.replace('_', ' '):<20}{own:>10.4f}{fitted:>10.4f}"
