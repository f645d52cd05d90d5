"""The words for a picture, in many phrasings.

A caption may state all attributes of a scene or only some. What it leaves out it leaves open:
"a red circle" is true of every picture of red circles, however many, wherever they lie (the article
does not count; "one" and "a single" do). Training relies on that, because a caption is then right
for each picture that agrees with it and wrong for all others.
"""

from collections.abc import Callable, Mapping, Sequence
from random import Random
from types import MappingProxyType

Value = str | int
Stated = Mapping[str, Value]

CHOICES: Mapping[str, tuple[Value, ...]] = MappingProxyType(
    {
        "colour": ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown"),
        "shape": ("circle", "ring", "square", "triangle", "star", "cross", "heart", "moon"),
        "size": ("small", "large"),
        "count": (1, 2, 3),
        "position": ("left", "right", "top", "bottom", "middle"),
        "background": ("white", "grey", "beige", "mint"),
    }
)
NUMBERS: Mapping[int, tuple[str, ...]] = MappingProxyType(
    {1: ("one", "a single"), 2: ("two",), 3: ("three",)}
)
EXTENTS = MappingProxyType({"small": ("small", "little"), "large": ("large", "big")})
PLACES = MappingProxyType(
    {
        "left": ("on the left", "at the left", "to the left"),
        "right": ("on the right", "at the right", "to the right"),
        "top": ("at the top", "on top"),
        "bottom": ("at the bottom", "on the bottom"),
        "middle": ("in the middle", "in the centre", "in the center"),
    }
)
GROUNDS = ("on a {} background", "on {}", "against a {} background", "on a {} canvas")
WRAPPERS = (
    "{}", "{}.", "a photo of {}", "a photo of {}.", "this is a photo of {}.",
    "this is a photo of {}", "a picture of {}", "an image of {}", "a drawing of {}", "this is {}.",
    "there is {}",
)  # fmt: skip
# Nothing that is ever drawn: these teach the model to say no.
STRANGERS = (
    "a cat", "a dog", "a car", "a house", "a tree", "a person", "food", "a city at night",
    "a bird", "a horse", "the sea", "a chair", "text", "a bicycle", "flowers", "a mountain",
)  # fmt: skip


Choose = Callable[[Sequence[str]], str]


def plain(stated: Stated) -> str:
    """The one canonical wording, the first of each list above."""
    return _sentence(stated, lambda options: options[0])


def varied(stated: Stated, rng: Random) -> str:
    """One of the many wordings, wrapper included."""
    return rng.choice(WRAPPERS).format(_sentence(stated, rng.choice))


def stranger(rng: Random) -> str:
    return rng.choice(WRAPPERS).format(rng.choice(STRANGERS))


def _sentence(stated: Stated, choose: Choose) -> str:
    thing = _thing(stated, choose)
    place = choose(PLACES[str(stated["position"])]) if "position" in stated else ""
    if "background" not in stated:
        return f"{thing} {place}".strip()
    paper = stated["background"]
    if not thing:
        return choose(("a {} background", "a {} canvas", "a {} picture")).format(paper)
    orders = (
        "{thing} {place} " + choose(GROUNDS),
        "{thing} " + choose(GROUNDS) + " {place}",
        "a {} background with {thing} {place}",
    )
    return _tidy(choose(orders).format(paper, thing=thing, place=place))


def _thing(stated: Stated, choose: Choose) -> str:
    """The noun with what stands before it; bare words for a colour or shape that stands alone."""
    names = stated.keys() & {"colour", "shape", "size", "count"}
    if not names:
        return choose(("something", "a shape", "shapes")) if "position" in stated else ""
    colour = str(stated.get("colour", ""))
    if names == {"colour"} and (bare := choose(("", colour, f"something {colour}"))):
        return bare
    size = choose(EXTENTS[str(stated["size"])]) if "size" in stated else ""
    noun = str(stated.get("shape", "shape"))
    if "count" in stated:
        count = int(stated["count"])
        things = noun if count == 1 else noun + _s(noun)
        return _tidy(f"{choose(NUMBERS[count])} {size} {colour} {things}")
    described = _tidy(f"{size} {colour} {noun}")
    return choose((article(described), described, described + _s(noun)))


def _s(noun: str) -> str:
    return "es" if noun == "cross" else "s"


def article(noun: str) -> str:
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"


def _tidy(sentence: str) -> str:
    return " ".join(sentence.split())
