"""What the bodies of requests have in common."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Model = Annotated[str | None, Field(description="name of the served model; another is a 404")]
Patches = Annotated[
    int | None,
    Field(ge=1, le=4096, description="patches an image may have; NaFlex checkpoints only"),
]
Numbers = Annotated[int | None, Field(ge=1, description="keep the first N numbers and renormalise")]
Several = Annotated[list[str], Field(min_length=1)]


class Form(BaseModel):
    """A request body: exact types, no unknown fields."""

    model_config = ConfigDict(extra="forbid", strict=True, protected_namespaces=())
