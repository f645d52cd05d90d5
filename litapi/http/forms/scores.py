"""`/score` and `/classify`."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from litapi.http.forms.form import RED_DOT, Form
from litapi.http.forms.parts import Picture


class ScoreRequest(Form):
    """Every text against every image."""

    texts: Annotated[list[str], Field(min_length=1, description="the rows of the answer")]
    images: Annotated[
        list[Picture],
        Field(min_length=1, description="the columns: base64, data URI, URL or digest"),
    ]
    model: str | None = Field(None, description="name of the served model; another is a 404")
    max_num_patches: int | None = Field(
        None, ge=1, le=4096, description="patches an image may have; NaFlex checkpoints only"
    )

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"texts": ["a red circle"], "images": [RED_DOT]}]}
    )


class ClassifyRequest(Form):
    """One image against labels put into a template."""

    image: Picture = Field(description="base64, data URI, URL or digest")
    labels: Annotated[list[str], Field(min_length=1, description="what it might show")]
    template: str = Field(
        "this is a photo of {label}.", description="the caption of a label; must hold {label}"
    )
    model: str | None = Field(None, description="name of the served model; another is a 404")
    max_num_patches: int | None = Field(
        None, ge=1, le=4096, description="patches an image may have; NaFlex checkpoints only"
    )

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"image": RED_DOT, "labels": ["red", "green", "blue"]}]}
    )


class ScoreResponse(BaseModel):
    """Rows are texts, columns images; probability is sigmoid(scale · cosine + bias)."""

    cosine: list[list[float]]
    probability: list[list[float]]
    logit_scale: float
    logit_bias: float
    model: str


class Label(BaseModel):
    """One label with its score."""

    label: str
    probability: float
    cosine: float


class ClassifyResponse(BaseModel):
    """Labels, the most probable first. Each probability stands alone; they need not sum to 1."""

    labels: list[Label]
    model: str
