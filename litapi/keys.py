"""API keys as the options and the keys file write them: a name, a class and limits for each.

An entry is `KEY`, or `NAME:KEY:CLASS` with the class `interactive` or `bulk`. Whatever does not end
in a class is a key as a whole, colons and all. Limits stand apart, under the name of the key, or in
a file behind the entry: `acme:k3y:bulk weight=3 items=500`. A name is what metrics and logs say; a
key without one is called by its number, so that no key is ever shown.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace

OTHERS = "*"  # limits under this name are those of every key that has none of its own
_ENTRY = re.compile(r"([A-Za-z0-9._-]{1,32}):(.+):(interactive|bulk)").fullmatch
_NAME = re.compile(r"[A-Za-z0-9._-]{1,32}|\*").fullmatch


class KeysError(ValueError):
    """An entry of `option` cannot be read; the text says why and shows no key."""

    def __init__(self, why: str, option: str = "key_limits") -> None:
        super().__init__(why)
        self.option = option


@dataclass(frozen=True, slots=True)
class Limits:
    """What one key may do; 0 is no limit. Rates are those of the whole server."""

    weight: float = 1.0  # of its share, beside the other keys of its class
    requests: float = 0.0  # a second
    items: float = 0.0  # a second
    megapixels: float = 0.0  # a second
    in_flight: float = 0  # items


@dataclass(frozen=True, slots=True)
class Key:
    """An API key: who it is for and what it may."""

    secret: str = field(repr=False)
    name: str
    bulk: bool = False  # its requests are bulk, whatever they ask for
    limits: Limits = Limits()


def read_keys(entries: Sequence[str], limits: Sequence[str] = ()) -> list[Key]:
    """The keys of some entries, with their limits. Raises KeysError: two keys have one name, a
    limit is none, or is for a name that no key has."""
    keys = [_key(number, entry) for number, entry in enumerate(entries, 1)]
    names = [key.name for key in keys]
    if len(set(names)) < len(names):
        raise KeysError("two keys have the same name")
    known = dict(map(read_limits, limits))
    if unknown := sorted(set(known) - {OTHERS, *names}):
        raise KeysError(f"limits for {unknown[0]!r}, which is no key's name")
    usual = known.get(OTHERS, Limits())
    return [replace(key, limits=known.get(key.name, usual)) for key in keys]


def read_limits(text: str) -> tuple[str, Limits]:
    """A name and its limits, from `acme weight=3 items=500`. Raises KeysError."""
    name, *parts = text.split() or [""]
    if not _NAME(name) or not parts:
        raise KeysError("limits have the form NAME weight=3 requests=10 items=500")
    return name, Limits(**dict(map(_limit, parts)))


def lines_of(text: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Entries and limits of a keys file: a key a line, `#` begins a comment. Raises KeysError."""
    entries, limits = [], []
    for line in map(str.strip, text.splitlines()):
        if line and line[0] != "#":
            entry, *rest = line.split(None, 1)
            entries.append(entry)
            named = _ENTRY(entry)
            if rest and named is None:
                raise KeysError("a key holds white space, or has limits and no name")
            if rest and named is not None:
                limits.append(f"{named[1]} {rest[0]}")
    return tuple(entries), tuple(limits)


def _key(number: int, entry: str) -> Key:
    named = _ENTRY(entry)
    if named is None:
        return Key(entry, f"key-{number}")
    return Key(named[2], named[1], bulk=named[3] == "bulk")


def _limit(part: str) -> tuple[str, float]:
    name, _, value = part.partition("=")
    known = {field.name for field in fields(Limits)}
    if name not in known or not re.fullmatch(r"\d{1,9}(\.\d+)?", value):
        raise KeysError(f"a limit is one of {', '.join(sorted(known))} with a number: weight=3")
    if not float(value):
        raise KeysError(f"{name}: takes a number above 0")
    return name, float(value)
