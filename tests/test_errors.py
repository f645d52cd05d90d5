"""The status table: each refusal has a status, a code of its own and a sentence for people."""

import re

import pytest

from litapi import errors
from litapi.errors import (
    ItemError,
    Overloaded,
    RequestError,
    RequestInvalid,
    ServiceError,
    public_errors,
)

# Codes are a promise to clients: a new one may join, none may change or go.
PROMISED = {
    400: "invalid_json invalid_request invalid_multipart invalid_http",
    401: "unauthorized",
    403: "image_url_disabled image_url_forbidden digest_disabled",
    404: "model_not_found not_found digest_unknown",
    405: "method_not_allowed",
    408: "request_timeout",
    413: "body_too_large too_many_items text_too_long image_too_large image_too_many_pixels "
    "image_too_heavy",
    415: "unsupported_media_type image_format_unsupported",
    422: "invalid_items text_empty text_invalid item_of_several_parts image_base64_invalid "
    "image_empty image_too_slow image_mode_unsupported image_undecodable image_url_invalid "
    "image_url_failed image_url_timeout digest_invalid",
    429: "too_many_wrong_keys rate_limited overloaded",
    431: "headers_too_large",
    500: "internal item_quarantined item_internal",
    503: "not_ready worker_lost",
    504: "deadline_exceeded",
}

# A digest is unknown until somebody sends the image; an address answers another way tomorrow.
MAY_GO_BETTER = {
    *("deadline_exceeded", "worker_lost", "item_internal", "digest_unknown"),
    *("image_url_forbidden", "image_url_failed", "image_url_timeout"),
}

REFUSALS = public_errors()
ITEMS = [one for one in REFUSALS if issubclass(one, ItemError)]


def test_no_promised_code_has_changed_its_name_or_status() -> None:
    """Each has its own, and clients branch on it: a new one is promised here."""
    assert len({one.code for one in REFUSALS}) == len(REFUSALS)
    promised = {code: status for status, codes in PROMISED.items() for code in codes.split()}
    assert {one.code: one.status for one in REFUSALS} == promised


@pytest.mark.parametrize("refusal", REFUSALS)
def test_a_refusal_is_written_the_way_the_table_is(refusal: type[ServiceError]) -> None:
    """Code, sentence, status, type, whose it is, and Retry-After exactly where waiting helps."""
    assert re.fullmatch(r"[a-z0-9]+(_[a-z0-9]+)*", refusal.code)
    assert re.fullmatch(r"[A-Z][^\n]*(\.|see items\.)", refusal.sentence)
    assert 400 <= refusal.status < 600
    assert (refusal.retry_after is not None) == (refusal.status in (429, 503))
    kinds = issubclass(refusal, RequestError) + issubclass(refusal, ItemError)
    assert kinds == 1 or refusal is ServiceError
    of_status = {429: "rate_limit_error"} | dict.fromkeys(range(500, 600), "server_error")
    assert refusal().type.endswith("_error")
    assert refusal().type == of_status.get(refusal.status, refusal().type)
    assert refusal.status in of_status or refusal().type not in of_status.values()


@pytest.mark.parametrize("refusal", ITEMS)
def test_an_item_error_crosses_processes_as_its_code(refusal: type[ItemError]) -> None:
    """What a worker names is what the client is told, word for word."""
    again = ItemError.from_code(refusal.code)
    assert (type(again), again.message, again.param) == (refusal, refusal.sentence, None)


@pytest.mark.parametrize("code", ["from_the_future", "", Overloaded.code])
def test_a_code_that_is_no_items_is_an_internal_error(code: str) -> None:
    """A worker of another version cannot make the HTTP process fail, nor refuse a request."""
    assert type(ItemError.from_code(code)) is errors.ItemInternal


@pytest.mark.parametrize("refusal", ITEMS)
def test_what_may_go_better_next_time_is_not_remembered(refusal: type[ItemError]) -> None:
    """Exactly these depend on the day and not on the bytes; all others would come back the same."""
    assert refusal.deterministic != (refusal.code in MAY_GO_BETTER)


def test_a_refusal_may_say_more_than_its_class() -> None:
    """The sentence of a form error names the field; status and code stay the class's."""
    error = RequestInvalid("input: Field required", param="input")
    assert (error.message, str(error)) == ("input: Field required",) * 2
    assert (error.status, error.code, error.param) == (400, "invalid_request", "input")
    assert RequestInvalid().message == RequestInvalid("").message == RequestInvalid.sentence


def test_an_overloaded_server_may_know_when_to_come_back() -> None:
    """The time of one refusal is its own; the class keeps the default."""
    assert Overloaded.after(7).retry_after == 7
    assert Overloaded().retry_after == 1


def test_no_public_sentence_tells_of_the_inside() -> None:
    """Clients learn nothing of the libraries, files and processes behind the service."""
    inside = re.compile(r"torch|redis|litserve|pydantic|pillow|traceback|python|/tmp|\bpid\b", re.I)
    assert [one for one in REFUSALS if inside.search(one.sentence)] == []
