from collections import Counter
from operator import ne
from random import Random

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from demo.batch import all_scenes, is_held_out, trained_scenes
from litapi.demo.caption import CHOICES, plain, varied
from litapi.demo.drawing import CANVASES, INKS, PAPERS, Scene, captions, draw
from litapi.demo.heldout import PAIRS, heldout_scenes, yardstick

SCENE = Scene("red", "star", "large", 2, "left", "white")


def inked(image: Image.Image, scene: Scene) -> npt.NDArray[np.bool_]:
    """Where the picture is nearer to the scene's ink than to its paper."""
    pixels = np.asarray(image, dtype=np.int64)
    known = np.array([INKS[scene.colour], PAPERS[scene.background]])
    ink, paper = np.abs(pixels - known[:, None, None]).sum(axis=3)
    return ink < paper  # type: ignore[no-any-return]


def random_scenes(many: int) -> list[Scene]:
    rng = Random(4)
    return [Scene.random(rng) for _ in range(many)]


def test_a_picture_is_a_function_of_its_scene_and_its_seed() -> None:
    """Which settles what the scene leaves open; the caller may fix the size of the canvas."""
    for scene in random_scenes(20):
        first, second = draw(scene, 3), draw(scene, 3)
        assert (first.size, first.tobytes()) == (second.size, second.tobytes())
    assert len({draw(SCENE, seed).tobytes() for seed in range(20)}) == 20
    assert {draw(SCENE, seed).size for seed in range(200)} == set(CANVASES)
    assert draw(SCENE, 1, canvas=(300, 200)).size == (300, 200)


@pytest.mark.parametrize("position", CHOICES["position"])
def test_the_shapes_lie_where_the_scene_says(position: str) -> None:
    """The ink's centre of mass is in the part of the canvas that the position names."""
    for seed in range(30):
        scene = Scene.random(Random(seed)).attributes() | {"position": position}
        ink = inked(draw(Scene.of(scene), seed), Scene.of(scene))
        y, x = (axis.mean() / side for axis, side in zip(ink.nonzero(), ink.shape, strict=True))
        at = {"left": x < 0.3, "right": x > 0.7, "top": y < 0.3, "bottom": y > 0.7}
        inside = 0.35 < x < 0.65 and 0.35 < y < 0.65
        assert at.get(position, inside)


def test_no_shape_is_cut_off_by_the_edge() -> None:
    """A border of one pixel is paper all round."""
    for seed, scene in enumerate(random_scenes(200)):
        ink = inked(draw(scene, seed), scene)
        assert not any(edge.any() for edge in (ink[0], ink[-1], ink[:, 0], ink[:, -1]))


def test_more_or_larger_shapes_take_more_ink() -> None:
    """Count and size are visible as area."""
    areas = {
        (size, count): np.mean([inked(draw(scene, seed, (256, 256)), scene) for seed in range(10)])
        for size in ("small", "large")
        for count in (1, 2, 3)
        for scene in [Scene("blue", "square", size, count)]
    }
    for size, count in areas:
        assert areas[size, count] == pytest.approx(count * areas[size, 1], rel=0.15)
    assert areas["large", 1] > 1.8 * areas["small", 1]


def test_the_canonical_caption_names_every_attribute() -> None:
    """Nothing that the picture shows is left out; different scenes never share one."""
    scenes = list(all_scenes())
    assert len({scene.caption() for scene in scenes}) == len(scenes) == 7680
    assert SCENE.caption() == "two large red stars on the left on a white background"
    assert SCENE.caption("colour", "shape") == "a red star"
    assert plain({"shape": "ring"}) == plain({"shape": "ring"})


def test_a_partial_caption_names_only_what_it_states() -> None:
    """What is not stated is not hinted at; full ones are different and repeatable."""
    rng = Random(0)
    for scene in random_scenes(200):
        wordings = captions(scene, seed=1, many=6)
        assert wordings == captions(scene, seed=1, many=6)
        assert len(set(wordings)) == 6
        whole = (scene.colour, scene.shape, scene.background)
        assert all(word in wording for wording in wordings for word in whole)
        said = varied(scene.stating("colour"), rng)
        assert scene.colour in said
        unsaid = [str(v) for name in ("shape", "background") for v in CHOICES[name]]
        assert not any(word in said.split() for word in unsaid)


def test_zero_shot_labels_are_wordings_of_their_own_attributes() -> None:
    """ "red", "circle" and "a red circle" all occur in training, in the usual prompt."""
    rng = Random(0)
    scene = Scene("red", "circle")
    labels = {("colour",): "red", ("shape",): "circle", ("colour", "shape"): "a red circle"}
    for names, label in labels.items():
        said = {varied(scene.stating(*names), rng) for _ in range(400)}
        assert f"this is a photo of {label}." in said


def test_an_unknown_attribute_is_refused() -> None:
    """A misspelt colour is an error, not a picture."""
    with pytest.raises(ValueError, match="colour must be one of"):
        Scene("rde", "circle")


def test_a_near_duplicate_differs_in_the_one_attribute() -> None:
    """`but` changes what it is told to and nothing else."""
    for name in CHOICES:
        before, after = SCENE.attributes(), SCENE.but(name, Random(0)).attributes()
        assert [key for key in before if before[key] != after[key]] == [name]


def test_trained_and_held_out_scenes_are_disjoint() -> None:
    """Neither the held-out combinations nor the yardstick are ever trained; pairs are balanced, and
    every colour and every shape is still trained, only not together."""
    scenes, trained = heldout_scenes(), set(trained_scenes())
    assert len(set(scenes)) == 48
    assert set(Counter((scene.colour, scene.shape) for scene in scenes).values()) == {6}
    assert trained.isdisjoint([*scenes, *yardstick()])
    assert not any(is_held_out(scene) for scene in trained)
    assert {colour for colour, _ in PAIRS} == set(CHOICES["colour"])
    assert {shape for _, shape in PAIRS} == set(CHOICES["shape"])
    assert len({(scene.colour, scene.shape) for scene in trained}) == 64 - len(PAIRS)


def test_the_yardstick_is_fixed_and_full_of_near_duplicates() -> None:
    """Every scene but the first has an earlier one that differs in a single attribute."""
    scenes = yardstick(120)
    assert scenes == yardstick(800)[:120]
    assert len(set(scenes)) == 120
    attributes = [list(scene.attributes().values()) for scene in scenes]
    for index, own in enumerate(attributes[1:], 1):
        assert min(sum(map(ne, own, earlier)) for earlier in attributes[:index]) == 1
