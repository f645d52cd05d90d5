"""How much each step does: on a GPU, and in a dry run, which goes the same way with very little."""

from __future__ import annotations

from dataclasses import dataclass, replace

from bench.rig.random_checkpoint import SIZES, Size, thin

SO400M = replace(SIZES["so400m-patch16-naflex"], vocabulary=32_000)  # 1.8 GB, not 2.3


@dataclass(frozen=True, slots=True)
class Sizes:
    """The defaults are those of a GPU."""

    model: Size = SO400M
    smoke: int = 24  # items of each tower
    rows: int = 64 * 256  # of the large products: pictures × patches
    outputs: tuple[int, ...] = (1152, 3456, 4304)  # columns of their weights
    attention: tuple[int, int, int, int] = (64, 16, 256, 72)  # pictures, heads, patches, numbers
    images: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64, 128)  # batches
    texts: tuple[int, ...] = (1, 4, 8, 32, 128, 256)
    mixed: int = 64  # pictures of a batch whose requests ask for so many patches, in turn
    mixes: tuple[tuple[int, ...], ...] = ((256,), (64, 128, 256), (64, 256, 576, 1024))
    compiled: int = 64  # the one size of batch
    rounds: int = 2
    seconds: float = 0.3  # of a slice of the towers and of the small parts
    workers: tuple[int, ...] = (1, 2, 4)  # of the image tower
    bare: tuple[int, int] = (64, 256)  # pictures, texts of a batch
    image_levels: tuple[int, ...] = (1, 64, 512)  # requests in flight
    text_levels: tuple[int, ...] = (1, 64, 1024)
    items: int = 32  # of a text request of several,
    full_levels: tuple[int, ...] = (16,)  # and how many of those
    served_seconds: float = 4.0  # of a level


DRY = Sizes(
    model=thin(64), smoke=3, rows=64, outputs=(64, 192), attention=(4, 2, 16, 8), images=(1, 2),
    texts=(1, 2), mixed=4, mixes=((256,), (16, 64)), compiled=2, rounds=1, seconds=0.02,
    workers=(1, 2), bare=(2, 2), image_levels=(2,), text_levels=(2,), items=4, full_levels=(1,),
    served_seconds=0.5,
)  # fmt: skip
