"""The body of every answer that is not a success."""

from __future__ import annotations

from pydantic import BaseModel, Field


class ItemFault(BaseModel):
    """Why one item was refused."""

    index: int = Field(description="its place among all items of the request, from 0")
    code: str
    message: str
    param: str | None = Field(None, description="its place in the body, such as texts[1]")


class ErrorBody(BaseModel):
    """What went wrong: `code` is stable, `message` is for people."""

    message: str
    type: str
    code: str
    param: str | None = None
    items: list[ItemFault] | None = None


class ErrorResponse(BaseModel):
    """The body of every answer that is not a success."""

    error: ErrorBody
