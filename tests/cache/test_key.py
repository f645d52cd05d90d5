import random
from hashlib import sha256
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache.key import LENGTH, Field, Fingerprint, key

VALUES: st.SearchStrategy[Field] = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=8)
)
FIELDS = st.dictionaries(st.text(max_size=4), VALUES, max_size=5)
BASE = Fingerprint.of({"model": "m", "revision": "r", "max_num_patches": 256})


def typed(fields: dict[str, Field]) -> dict[str, tuple[type, str]]:
    """Python calls 1, 1.0 and True equal; these are not."""
    return {name: (type(value), repr(value)) for name, value in fields.items()}


@given(FIELDS, FIELDS)
def test_two_fingerprints_are_equal_exactly_when_all_their_fields_are(
    one: dict[str, Field], other: dict[str, Field]
) -> None:
    """Names, values and types all count, and nothing else does."""
    equal = Fingerprint.of(one) == Fingerprint.of(other)
    assert equal == (typed(one) == typed(other))


@given(FIELDS, st.randoms())
def test_the_order_of_the_fields_does_not_matter(
    fields: dict[str, Field], chance: random.Random
) -> None:
    """A dictionary built in another order names the same model."""
    items = list(fields.items())
    chance.shuffle(items)
    assert Fingerprint.of(dict(items)) == Fingerprint.of(fields)


def test_no_two_ways_to_cut_the_same_text_meet() -> None:
    """Fields are framed by their length, so a separator inside a value separates nothing."""
    cuts: list[dict[str, Field]] = [
        {"a": "b:c"}, {"a:b": "c"}, {"a": "b", "c": ""}, {"a": "", "b": "c"}, {"ab": "c"},
        {"a": "bc"}, {"": "abc"},
    ]  # fmt: skip
    assert len({Fingerprint.of(cut).digest for cut in cuts}) == len(cuts)


def test_deriving_is_the_same_as_having_been_made_so_and_leaves_the_original_alone() -> None:
    """A request's variation has the fingerprint of a service set up that way, and cannot leak into
    the next one, nor can a change of what it was made of."""
    fields: dict[str, Field] = {"model": "m", "patches": 256}
    base = Fingerprint.of(fields)
    fields["model"] = "another"
    derived = base.derive(patches=64)
    assert derived == Fingerprint.of({"model": "m", "patches": 64}) != base
    assert derived.derive(patches=256) == base.derive() == base


def test_a_fingerprint_does_not_show_its_fields() -> None:
    """A tenant's salt is a field, and logs print reprs."""
    assert "secret" not in repr(Fingerprint.of({"tenant": "secret"}))


@pytest.mark.parametrize("value", [b"bytes", ["list"], object(), (1, 2)])
def test_a_field_of_another_type_is_refused(value: Any) -> None:
    """What has no one true form as bytes cannot be part of a name."""
    with pytest.raises(TypeError, match="'field'"):
        Fingerprint.of({"field": value})


def test_text_that_is_not_valid_unicode_can_still_be_a_field() -> None:
    """A lone surrogate in a file name must not stop the service."""
    assert Fingerprint.of({"path": "\ud800"}) != Fingerprint.of({"path": "\ud801"})


@given(st.binary(max_size=64))
def test_a_key_is_prefix_fingerprint_kind_and_the_whole_sha256(content: bytes) -> None:
    """The layout is part of the contract with what is already in Redis; by the start of what /info
    shows an operator finds the keys of this model."""
    made = key(BASE, "i", content)
    assert made == b"sl2:" + BASE.digest[:8] + b"i" + sha256(content).digest()
    assert len(made) == LENGTH == 45
    assert (len(BASE.hex), BASE.hex[:16]) == (64, made[4:12].hex())


@pytest.mark.parametrize("kind", ["", "x", "ti", "T", "é"])
def test_a_kind_that_is_not_known_is_refused(kind: str) -> None:
    """A third kind would need a third letter, not a guess."""
    with pytest.raises(ValueError, match="kind"):
        key(BASE, kind, b"x")
