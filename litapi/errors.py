"""Every refusal this service can answer: a status, a stable code, a public sentence.

    bytes ──read──► body ──parse──► request ──split──► items ──decode──► inputs ──predict──► vectors
            │               │                  │                │                  │
       BodyTooLarge    JsonInvalid        TooManyItems     TextError          Overloaded
       MediaType…      RequestInvalid     ModelUnknown     ImageError         DeadlineExceeded
                                                                              WorkerLost, Internal

A `RequestError` refuses the whole request. An `ItemError` refuses one item and harms no neighbour;
it crosses processes as its code alone, so a worker's has no free text. The sentence is what the
client reads; what went wrong inside goes to the log and nowhere else.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar, Self


class ServiceError(Exception):
    """A refusal with its HTTP status, stable code and public sentence."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal"
    sentence: ClassVar[str] = "The server could not finish this request."
    retry_after: int | None = None
    allow: tuple[str, ...] = ()
    challenges: ClassVar[tuple[str, ...]] = ()

    def __init_subclass__(cls, status: int = 0, code: str = "", retry_after: int = 0) -> None:
        if code:  # `public_errors` lists the classes that have one of their own
            cls.status, cls.code = status or cls.status, code
            cls.retry_after = retry_after or cls.retry_after

    def __init__(self, sentence: str | None = None, *, param: str | None = None) -> None:
        super().__init__(sentence or self.sentence)
        self.message = sentence or self.sentence
        self.param = param

    @classmethod
    def after(cls, seconds: int, sentence: str | None = None) -> Self:
        """The refusal that says in how many seconds to come back."""
        error = cls(sentence)
        error.retry_after = seconds
        return error

    @property
    def type(self) -> str:
        if self.status == 429:
            return "rate_limit_error"
        return "invalid_request_error" if self.status < 500 else "server_error"


class RequestError(ServiceError):
    """Refuses the whole request."""


class JsonInvalid(RequestError, status=400, code="invalid_json"):
    sentence = "The body is not valid JSON."


class RequestInvalid(RequestError, status=400, code="invalid_request"):
    sentence = "The request does not have the expected form."


class MultipartInvalid(RequestError, status=400, code="invalid_multipart"):
    sentence = "The multipart body could not be read."


class BodyTooLarge(RequestError, status=413, code="body_too_large"):
    sentence = "The body is larger than this server accepts; /info states the limit."


class TooManyItems(RequestError, status=413, code="too_many_items"):
    sentence = "The request has more items than this server accepts; /info states the limit."


class MediaTypeUnsupported(RequestError, status=415, code="unsupported_media_type"):
    sentence = (
        "This route does not read bodies of that content type. All routes read application/json;"
        " /embed_image also reads image/* and multipart/form-data."
    )


class ModelUnknown(RequestError, status=404, code="model_not_found"):
    sentence = "This server does not serve that model; /v1/models lists what it serves."


class RouteUnknown(RequestError, status=404, code="not_found"):
    sentence = "There is no such route; /docs lists the routes."


class MethodNotAllowed(RequestError, status=405, code="method_not_allowed"):
    sentence = "This route does not answer that method; /docs shows which it does."

    def __init__(self, allow: Iterable[str] = ()) -> None:
        super().__init__()
        self.allow = tuple(sorted(allow))


class ItemsInvalid(RequestError, status=422, code="invalid_items"):
    """Several items were refused; `items` names each by its index."""

    sentence = "Some items could not be embedded; see items."


class RequestTimeout(RequestError, status=408, code="request_timeout"):
    sentence = "The request did not arrive in time."


class HeadersTooLarge(RequestError, status=431, code="headers_too_large"):
    sentence = "The request has more header bytes than this server accepts."


class HttpInvalid(RequestError, status=400, code="invalid_http"):
    sentence = "The request is not valid HTTP."


class Unauthorized(RequestError, status=401, code="unauthorized"):
    sentence = "A valid API key is needed: Authorization: Bearer KEY, or X-API-Key: KEY."
    challenges = ('Basic realm="siglit, the key as password", charset="UTF-8"', "Bearer")


class RateLimited(RequestError, status=429, code="rate_limited", retry_after=1):
    sentence = "This key has used its rate of requests; try again shortly."


class TooManyWrongKeys(RequestError, status=429, code="too_many_wrong_keys", retry_after=60):
    sentence = "Too many wrong keys came from this address; try again in a minute."


class Overloaded(RequestError, status=429, code="overloaded", retry_after=1):
    sentence = "The server is at its limit of work in flight; try again shortly."


class NotReady(RequestError, status=503, code="not_ready", retry_after=2):
    sentence = "The server is not ready to embed."


class ItemError(ServiceError):
    """Refuses one item. Built from its code on the other side of a process boundary."""

    status = 422
    by_code: ClassVar[dict[str, type[ItemError]]] = {}
    deterministic: ClassVar[bool] = True  # the same bytes would always be refused the same way

    def __init_subclass__(
        cls, status: int = 0, code: str = "", retry_after: int = 0, deterministic: bool = True
    ) -> None:
        super().__init_subclass__(status, code, retry_after)
        cls.deterministic = deterministic and cls.deterministic
        ItemError.by_code[cls.code] = cls

    @staticmethod
    def from_code(code: str) -> ItemError:
        """The error that a worker named by `code`; an unknown code is an internal error."""
        return ItemError.by_code.get(code, ItemInternal)()

    @staticmethod
    def own(code: str) -> bool:
        return ItemError.from_code(code).status < 500


class TextEmpty(ItemError, code="text_empty"):
    sentence = "The text is empty."


class TextTooLong(ItemError, status=413, code="text_too_long"):
    sentence = "The text has more characters than this server accepts; /info states the limit."


class TextInvalid(ItemError, code="text_invalid"):
    sentence = "The text holds characters that cannot be encoded, such as a lone surrogate."


class ItemOfSeveralParts(ItemError, code="item_of_several_parts"):
    sentence = (
        "The input has several parts. SigLIP2 has a vector for one text or one image, and none for"
        " both together; send each part as an input of its own."
    )


class ImageBase64Invalid(ItemError, code="image_base64_invalid"):
    sentence = (
        "The image is neither valid base64 nor a valid data URI. Its bytes are needed: a file name"
        " or a text will not do."
    )


class ImageEmpty(ItemError, code="image_empty"):
    sentence = "The image has no bytes."


class ImageTooLarge(ItemError, status=413, code="image_too_large"):
    sentence = "The image has more bytes than this server accepts; /info states the limit."


class ImageTooManyPixels(ItemError, status=413, code="image_too_many_pixels"):
    sentence = "The image has more pixels than this server accepts; /info states the limit."


class ImageTooHeavy(ItemError, status=413, code="image_too_heavy"):
    sentence = (
        "Decoding the image takes more memory than this server has for one; a smaller image, or"
        " the same one as a plain JPEG or PNG, takes less."
    )


class ImageTooSlow(ItemError, code="image_too_slow"):
    sentence = "The image takes too long to decode for its size; save it anew in a usual form."


class ImageFormatUnsupported(ItemError, status=415, code="image_format_unsupported"):
    sentence = "The bytes are not an image in a format this server reads; /info lists them."


class ImageModeUnsupported(ItemError, code="image_mode_unsupported"):
    sentence = "The image stores its pixels in a form this server does not read, such as floats."


class ImageUndecodable(ItemError, code="image_undecodable"):
    sentence = "The image is damaged or cut short and could not be decoded."


class ImageUrlDisabled(ItemError, status=403, code="image_url_disabled"):
    sentence = "This server does not fetch images by URL; send the bytes."


class ImageUrlInvalid(ItemError, code="image_url_invalid"):
    sentence = "The image URL is not a plain http or https URL."


class ImageUrlForbidden(ItemError, status=403, code="image_url_forbidden", deterministic=False):
    sentence = "This server does not fetch images from there."


class ImageUrlFailed(ItemError, code="image_url_failed", deterministic=False):
    sentence = "The image could not be fetched from its URL."


class ImageUrlTimeout(ItemError, code="image_url_timeout", deterministic=False):
    sentence = "The image did not arrive from its URL in time."


class DigestInvalid(ItemError, code="digest_invalid"):
    sentence = "The digest is not a sha256 in 64 hexadecimal digits."


class DigestUnknown(ItemError, status=404, code="digest_unknown", deterministic=False):
    sentence = "The cache has no image of this digest at present; send the image's bytes."


class DigestDisabled(ItemError, status=403, code="digest_disabled"):
    sentence = "This server looks up no images by digest; send the bytes."


class DeadlineExceeded(ItemError, status=504, code="deadline_exceeded", deterministic=False):
    sentence = "The item was not embedded before the deadline."


class WorkerLost(ItemError, status=503, code="worker_lost", retry_after=1, deterministic=False):
    sentence = "The worker that held this item was lost; try again."


class ItemQuarantined(ItemError, status=500, code="item_quarantined"):
    sentence = "Workers fail over this item again and again; it is refused for a while."


class ItemInternal(ItemError, status=500, code="item_internal", deterministic=False):
    sentence = "The server could not embed this item."


def public_errors() -> list[type[ServiceError]]:
    """Every class here that has a code of its own, in the order of this file."""
    classes = [one for one in globals().values() if isinstance(one, type)]
    return [one for one in classes if issubclass(one, ServiceError) and "code" in vars(one)]
