"""`/score` and `/classify`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from litapi.http.forms.form import Form, Model, Patches
from litapi.http.forms.parts import Picture

BESIDE = "the model's own, where a calibration gives the probability"


class ScoreRequest(Form):
    """Every text against every image."""

    texts: Annotated[list[str], Field(min_length=1, description="the rows of the answer")]
    images: Annotated[
        list[Picture],
        Field(min_length=1, description="the columns: base64, data URI, URL or digest"),
    ]
    model: Model = None
    max_num_patches: Patches = None


class ClassifyRequest(Form):
    """One image against labels put into a template."""

    image: Picture = Field(description="base64, data URI, URL or digest")
    labels: Annotated[list[str], Field(min_length=1, description="what it might show")]
    template: str = Field(
        "this is a photo of {label}.", description="the caption of a label; must hold {label}"
    )
    templates: list[str] | None = Field(
        None,
        min_length=1,
        description="several captions of each label, instead of `template`: the label's vector is"
        " the mean of theirs, of length 1 again. Labels × templates count as items",
    )
    threshold: float | None = Field(
        None,
        ge=0,
        le=1,
        allow_inf_nan=False,
        description="the probability from which on a label holds; default: the calibration's, else"
        " 0.5",
    )
    model: Model = None
    max_num_patches: Patches = None
