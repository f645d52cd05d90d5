"""What a client raises: the server is away, it refuses the request, or it refuses items of it."""

from __future__ import annotations


class ClientError(Exception):
    """The base of all that is raised here on purpose."""


class ServerLost(ClientError):
    """Nothing answered until the deadline."""


class RequestRefused(ClientError):
    """The whole request is refused; `code` is stable and docs/http-api.md lists it."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


class SpaceChanged(ClientError):
    """Another model answers than before, as in a roll-out. The next call begins with the new one;
    what was embedded before cannot be compared with it."""

    def __init__(self, before: str, now: str) -> None:
        super().__init__(f"the server changed its model: vectors were of {before}, now of {now}")


class ItemRefused(ClientError):
    """One item is refused; its neighbours have their vectors."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class ItemsRefused(ClientError):
    """Some items were refused: `errors` has each by its place in what was given."""

    def __init__(self, errors: dict[int, ItemRefused]) -> None:
        first = min(errors)
        super().__init__(
            f"{len(errors)} item(s) refused; the first is item {first}, {errors[first].code}: "
            f"{errors[first]}"
        )
        self.errors = errors
