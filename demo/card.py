"""The model card: words from here, every number from the run's own `heldout.json`."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from litapi.demo.caption import CHOICES

Figures = Mapping[str, Any]

TEMPLATE = """\
# The demo checkpoint

A real NaFlex SigLIP2 (`Siglip2Model`, `Siglip2Processor`), small enough to ship: {parameters:,}
parameters in float32, {megabytes} MB, a vocabulary of {vocabulary}. It is laid out as
`google/siglip2-*-naflex` and loads the same way:

```python
from transformers import AutoModel, AutoProcessor

model = AutoModel.from_pretrained("litapi/demo/checkpoint")
processor = AutoProcessor.from_pretrained("litapi/demo/checkpoint")
```

It exists so that the server, its tests and its benchmarks run on vectors that mean something, with
nothing to download. It knows the pictures described below and nothing else; its quality and speed
say nothing about the real checkpoints.

## Data

Pictures drawn by `drawing.py`: one to three equal shapes of one colour on a plain ground.

| attribute | values |
|---|---|
{choices}

That is {all_scenes:,} combinations, of which {trained_scenes:,} were trained. Canvas, exact place,
tilt and shade vary with the seed. Every colour is darker than every background. Captions come in
many wordings, and may state only some of the attributes ("a red circle", "circle", "red shapes");
a caption is right for every picture that agrees with it. A few name things that are never drawn
("a photo of a cat"), and are right for none.

## Training

`python -m demo --seed {seed} --steps {steps}` took {seconds:,} s on {threads} threads
of a shared machine ({cpu_seconds:,} CPU seconds). The loss is SigLIP's sigmoid loss. Before it,
classifiers of the attributes give both towers the same axes; they fade out and are thrown away
(`lesson.py` says when and why). Logit scale {logit_scale} (after exp), logit bias {logit_bias}.

The same seed gives the same weights on the same machine and library versions; elsewhere, rounding
differs, and so do the last digits of the figures.

## Held-out figures

Eight pairs of colour and shape never occur together in training:
{pairs}.
Measured through AutoModel and AutoProcessor on what was saved.

| set | direction | recall@1 | recall@5 | recall@10 |
|---|---|---|---|---|
{retrieval}

- *Held out*: one scene for each of those pairs, each size and each count. They differ in several
  attributes at once, so finding the right one of 48 is the easier part.
- *Yardstick*: scenes that differ from one another in single attributes; none of them was trained,
  though most of their pairs were. It is there to show small damage to the vectors, as a wrong
  mask, padding or precision does.

Zero-shot accuracy with the prompt "this is a photo of {{label}}.":

| set | by colour (8) | by shape (8) | by both, "a red circle" (64) |
|---|---|---|---|
{zero_shot}

A shape in a colour it never had is recognised less often: that is what the first row shows.

A score, the sigmoid of scale times cosine plus bias, should be above one half for a picture with
its own full caption and below for every other:

| set | right pairs above | wrong pairs below |
|---|---|---|
{verdicts}
"""

SETS = {
    "heldout": "held out",
    "yardstick": "yardstick",
    "yardstick_short": "its beginning",
}
WAYS = {"text_to_image": "text → image", "image_to_text": "image → text"}


def card(figures: Figures, pairs: Sequence[tuple[str, str]], all_scenes: int) -> str:
    return TEMPLATE.format(
        **figures["training"],
        all_scenes=all_scenes,
        pairs=", ".join(" ".join(pair) for pair in pairs),
        choices=_rows([name, ", ".join(map(str, v))] for name, v in CHOICES.items()),
        retrieval=_rows(_recalls(figures)),
        zero_shot=_rows(_shares(figures, "zero_shot", 3)),
        verdicts=_rows(_shares(figures, "verdicts", 4)),
    )


def _recalls(figures: Figures) -> list[list[str]]:
    return [
        [_title(figures, key), way, *(f"{r:.3f}" for r in figures[key]["retrieval"][name].values())]
        for key in SETS
        for name, way in WAYS.items()
    ]


def _shares(figures: Figures, what: str, digits: int) -> list[list[str]]:
    return [
        [_title(figures, key), *(f"{share:.{digits}f}" for share in figures[key][what].values())]
        for key in SETS
    ]


def _title(figures: Figures, key: str) -> str:
    return f"{SETS[key]}, {figures[key]['scenes']}"


def _rows(rows: Iterable[list[str]]) -> str:
    return "\n".join("| " + " | ".join(cells) + " |" for cells in rows)
