"""A parsed body → the form of its route.

What is exact is taken as it stands. The rest is read once more: nulls stand for defaults, inert
fields do nothing, 2.0 is 2. What is still wrong is refused, each field by its place in the body.
"""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from litapi.errors import RequestInvalid
from litapi.http.forms.parts import PART_NAMES

ModelT = TypeVar("ModelT", bound=BaseModel)


# What cannot change a vector here, with the values that mean what this server does anyway.
INERT: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("user", "input_type", "task", "metadata", "priority"), ()),
    "truncate": ("END", "true"),
    "truncation": ("true",),
    "truncation_direction": ("right",),
    "normalize": ("true",),
    "normalized": ("true",),
    "late_chunking": ("false",),
    "output_dtype": ("float",),
}
# What other makers call a field of ours, and what they call its values.
NAMES = {"output_dimension": "dimensions"}
VALUES: dict[tuple[str, str], dict[str, str]] = {
    ("embedding_type", "float"): {"embedding_type": "float32"},
    ("embedding_type", "ubinary"): {"embedding_type": "binary"},
    ("embedding_type", "base64"): {"encoding_format": "base64"},
}
DEEPEST = 6  # a body, its list, an input of it, the list in that, a part of it, the object in that
SHOWN = 64  # characters of a name that are said again
SENTENCES = 8  # of one refusal


def validate(form: type[ModelT], body: Any) -> ModelT:
    """`body` as `form`. What is written in another way than the form has it is read on demand.
    Raises RequestInvalid: its sentence names every wrong field by its place in the body."""
    try:  # model_validate does no more than this, and takes half as long again
        valid: ModelT = form.__pydantic_validator__.validate_python(body)
        return valid
    except ValidationError:
        body = _plain(form, body)
    try:
        return form.__pydantic_validator__.validate_python(body)  # type: ignore[no-any-return]
    except ValidationError as error:
        if "input" in form.model_fields and _only_tokens(body):
            raise RequestInvalid(TOKENS_SENT, param="input") from None
        faults = error.errors(include_url=False, include_context=False, include_input=False)
        told = faults[:SENTENCES]
        places = [_place(fault["loc"]) for fault in told]
        sentences = [f"{p}: {_reason(f, form)}" for p, f in zip(places, told, strict=True)]
        shown = "; ".join(sentences) + ("; …" if len(faults) > SENTENCES else "")
        raise RequestInvalid(shown, param=places[0]) from None


def named(name: str) -> str:
    """A name that a client gave, as it may come back in an answer: not all of a long one."""
    return name if len(name) <= SHOWN else name[:SHOWN] + "…"


def no_effect(name: str, value: Any) -> None:
    """Raises `RequestInvalid` where an inert field asks for what would change the vector."""
    agreed = INERT[name]
    said = str(value)[:SHOWN].lower() if isinstance(value, bool | str) else ""
    if agreed and value is not None and said not in map(str.lower, agreed):
        raise RequestInvalid(f"{name}: only {' or '.join(agreed)} is served here", param=name)


def _plain(form: type[BaseModel], body: Any) -> Any:
    """The same body without nulls that stand for defaults, inert fields, and 2.0 for 2."""
    if not isinstance(body, dict):
        return body
    plain: dict[str, Any] = {}
    for name, value in body.items():
        if name not in form.model_fields and NAMES.get(name) in form.model_fields:
            name = NAMES[name]
        field = form.model_fields.get(name)
        if field is None and name in INERT:
            no_effect(name, value)
        elif value is not None or field is None or field.is_required():
            said = VALUES.get((name, value)) if isinstance(value, str) and field else None
            plain |= said or {name: _whole(_plain_parts(value, DEEPEST))}
    return plain


def _plain_parts(value: Any, depth: int) -> Any:
    """The same without what parts of a request say that they are not."""
    if depth and isinstance(value, list):
        return [_plain_parts(one, depth - 1) for one in value]
    if not depth or not isinstance(value, dict):
        return value
    is_part = any(value.get(name) is not None for name in PART_NAMES)
    kept = {n: v for n, v in value.items() if v is not None or not is_part or n not in PART_NAMES}
    return {name: _plain_parts(one, depth - 1) for name, one in kept.items()}


def _whole(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


TOKENS_SENT = (
    "input: token ids cannot be embedded, for they come from another model's tokenizer; send the"
    " texts themselves (LangChain: check_embedding_ctx_length=False)"
)


def _only_tokens(body: Any) -> bool:
    """Whether `input` is in OpenAI's other form: ids of one text, or a list of them for each."""
    parts = body.get("input") if isinstance(body, dict) else None
    return isinstance(parts, list) and parts != [] and all(isinstance(p, int | list) for p in parts)


def _reason(fault: ErrorDetails, form: type[BaseModel]) -> str:
    if fault["type"] == "model_type":
        return "Input should be an object"
    if fault["type"] == "extra_forbidden" and len(fault["loc"]) == 1:
        return f"there is no such field here, only {', '.join(form.model_fields)}"
    return fault["msg"]


TAGGED = ("input", "inputs", "image", "query", "source_sentence")  # unions beside those in lists
_TAGS = frozenset({"string", "list", "object", *PART_NAMES})


def _place(loc: tuple[int | str, ...]) -> str:
    """`('input', 'list', 3, 'text', 'text')` → `input[3].text`."""
    place = ""
    tag_next = False
    for step in loc:
        if isinstance(step, int):
            place += f"[{step}]"
            tag_next = True
        elif tag_next and step in _TAGS:
            tag_next = False
        elif not place or not step.startswith(("str", "list[", "constrained", "ImageUrl")):
            place += f".{named(step)}" if place else named(step)
            tag_next = step in TAGGED
    return place or "body"
