"""SigLIP 2 itself: one tower, from model input to unit float32 vectors. Knows torch, not HTTP.

The weights and modules are transformers' own; only the way through them is this file's, where the
stock way does work that the result does not need:

- text: the last layer is computed for the last position alone, the only one that is pooled;
- images: levels are moved to the device as uint8 and normalised there by table; the position
  table is resized once for each grid and kept, not once for each image; a batch whose pictures
  have equally many patches is neither padded nor masked, any other is padded to its longest.

`stock` walks transformers' own forward instead, for the check at start-up and the parity tests.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own name for it

from litapi.checkpoint import Checkpoint, CheckpointError
from litapi.model.compiled import Compiled
from litapi.model.layers import ImageBody, TextBody
from litapi.model.pixels import Pixels, normalise_table
from litapi.model.precision import PRECISIONS as PRECISIONS
from litapi.model.precision import arithmetic, find_device, float_type, quantize, require_known
from litapi.model.precision import choose_precision as choose_precision

Vectors = npt.NDArray[np.float32]
KEPT_POSITIONS = 32_768  # rows of resized position tables kept: 75 MB of so400m in bfloat16

# One forward pass reads the whole checkpoint's files; the other tower's weights are no news.
OTHER_TOWER = {
    "text": [r"^vision_model\.", r"^logit_(scale|bias)$"],
    "image": [r"^text_model\.", r"^logit_(scale|bias)$"],
}


class TextEncoder:
    """The text tower."""

    def __init__(
        self,
        model: Any,
        device: str,
        precision: str,
        compile: bool = False,  # noqa: A002 - what torch calls it
    ) -> None:
        """Takes `model`, a transformers Siglip(2)TextModel, to `device` and into `precision`."""
        self._place = find_device(device)
        self.model = model.eval().to(self._place, float_type(precision, self._place))
        self.device = device
        self.precision = precision
        self.arithmetic = arithmetic(precision, self._place, compile)
        self.parameters = sum(weight.numel() for weight in model.parameters())
        self.dim = int(self.model.head.out_features)
        body = TextBody(self.model)
        quantize(body, body.matrices(), precision, self._place)
        self._body: Callable[..., Tensor] = body
        if compile:
            self._body = self._compiled(body)

    @classmethod
    def load(
        cls,
        checkpoint: Checkpoint,
        device: str = "cpu",
        precision: str = "float32",
        threads: int = 0,
        compile: bool = False,  # noqa: A002 - what torch calls it
    ) -> Self:
        """Load the text tower alone. `threads` above 0 sets torch's threads in this process.

        Raises CheckpointError where weights are missing or the device, precision or compiler is
        not there.
        """
        model = _load("text", checkpoint, device, precision, threads)
        return cls(model, device, precision, compile)

    def embed(self, ids: npt.NDArray[np.int64]) -> Vectors:
        """Token ids (n, 64) → unit vectors (n, dim)."""
        return self._vectors(ids, self._last_position)

    def stock(self, ids: npt.NDArray[np.int64]) -> Vectors:
        """As `embed`, by transformers' own forward."""
        return self._vectors(ids, lambda rows: self.model(input_ids=rows).pooler_output)

    def _vectors(self, ids: npt.NDArray[np.int64], forward: Callable[[Tensor], Tensor]) -> Vectors:
        if not len(ids):
            return np.empty((0, self.dim), np.float32)
        with torch.inference_mode():
            return _unit(forward(torch.from_numpy(ids).to(self._place)))

    def _last_position(self, ids: Tensor) -> Tensor:
        return self._body(self.model.embeddings(input_ids=ids))

    def _compiled(self, body: TextBody) -> Compiled:
        compiled = Compiled(body, "text", self._place, self.precision)
        with torch.inference_mode():
            compiled.warm(self.model.embeddings(input_ids=self._no_ids()))
        return compiled

    def _no_ids(self) -> Tensor:
        length = self.model.config.max_position_embeddings
        return torch.zeros((1, length), dtype=torch.int64, device=self._place)


class ImageEncoder:
    """The image tower, of a fixed resolution or NaFlex."""

    def __init__(
        self,
        model: Any,
        device: str,
        precision: str,
        table: npt.NDArray[np.float32],
        compile: bool = False,  # noqa: A002 - what torch calls it
        patches: int = 0,
    ) -> None:
        """Takes `model`, a transformers Siglip(2)VisionModel, to `device` and into `precision`.

        `table` is the float32 value of each of the 256 levels, shape (256,). A compiled NaFlex
        tower pads every picture to `patches`, by default as many as its position table has.
        """
        self._place = find_device(device)
        kind = float_type(precision, self._place)
        self.model = model.eval().to(self._place, kind)
        self.device = device
        self.precision = precision
        self.arithmetic = arithmetic(precision, self._place, compile)
        self.parameters = sum(weight.numel() for weight in model.parameters())
        self.dim = int(self.model.config.hidden_size)
        self.naflex = hasattr(self.model.config, "num_patches")
        # In the weights' precision: the stock forward rounds each value to it all the same.
        self.table = torch.from_numpy(table).to(self._place, kind)
        self.positions = PositionTables(self.model.embeddings) if self.naflex else None
        self._body = ImageBody(self.model)
        quantize(self._body, self._body.matrices(), precision, self._place)
        table_rows = int(self.model.embeddings.position_embedding.num_embeddings)
        self._patches = (patches if self.naflex else 0) or table_rows
        self._compiled = self._compile() if compile else None

    @classmethod
    def load(
        cls,
        checkpoint: Checkpoint,
        device: str = "cpu",
        precision: str = "float32",
        threads: int = 0,
        compile: bool = False,  # noqa: A002 - what torch calls it
        patches: int = 0,
    ) -> Self:
        """Load the image tower alone. `threads` above 0 sets torch's threads in this process.

        Raises CheckpointError where weights are missing or the device, precision or compiler is
        not there.
        """
        model = _load("image", checkpoint, device, precision, threads)
        table = normalise_table(checkpoint.preprocessing)
        return cls(model, device, precision, table, compile, patches or checkpoint.max_num_patches)

    def embed(self, pixels: Sequence[Pixels]) -> Vectors:
        """n pictures → unit vectors (n, dim)."""
        return self._vectors(pixels, self._naflex if self.naflex else self._fixed)

    def stock(self, pixels: Sequence[Pixels]) -> Vectors:
        """As `embed`, by transformers' own forward: NaFlex padded to the longest and masked."""
        return self._vectors(pixels, self._stock_naflex if self.naflex else self._stock_fixed)

    def _vectors(
        self, pixels: Sequence[Pixels], forward: Callable[[Sequence[Pixels]], Tensor]
    ) -> Vectors:
        if not pixels:
            return np.empty((0, self.dim), np.float32)
        with torch.inference_mode():
            return _unit(forward(pixels))

    def _fixed(self, pixels: Sequence[Pixels]) -> Tensor:
        body = self._compiled or self._body
        pooled: Tensor = body(self.model.embeddings(self._squares(pixels)))
        return pooled

    def _naflex(self, pixels: Sequence[Pixels]) -> Tensor:
        """A picture too long for the compiled tower goes through the plain one, alone or not."""
        if self._compiled is None:
            return self._unlike(pixels)
        fits = torch.tensor([picture.cost <= self._patches for picture in pixels])
        pooled = torch.empty((len(pixels), self.dim), dtype=self.table.dtype, device=self._place)
        for chosen, way in ((fits, self._alike), (~fits, self._unlike)):
            if chosen.any():
                some = [picture for picture, yes in zip(pixels, chosen, strict=True) if yes]
                pooled[chosen.to(self._place)] = way(some)
        return pooled

    def _unlike(self, pixels: Sequence[Pixels]) -> Tensor:
        longest = max(picture.cost for picture in pixels)
        pooled: Tensor = self._body(self._embedded(pixels, longest), self._mask(pixels))
        return pooled

    def _alike(self, pixels: Sequence[Pixels]) -> Tensor:
        hidden = self._embedded(pixels, self._patches)
        compiled = self._compiled or self._body
        pooled: Tensor = compiled(hidden, self._real_patches(pixels, self._patches))
        return pooled

    def _embedded(self, pixels: Sequence[Pixels], longest: int) -> Tensor:
        """Patches with their positions: (n, longest, width)."""
        hidden: Tensor = self.model.embeddings.patch_embedding(self._sequences(pixels, longest))
        return hidden + self._position_rows([picture.grid for picture in pixels], longest)

    def _compile(self) -> Compiled:
        compiled = Compiled(self._body, "image", self._place, self.precision)
        with torch.inference_mode():
            hidden = torch.zeros((1, self._patches, self.dim), dtype=self.table.dtype)
            mask = torch.ones((1, self._patches), dtype=torch.int64)
            item = (hidden, mask) if self.naflex else (hidden,)
            compiled.warm(*(one.to(self._place) for one in item))
        return compiled

    def _stock_fixed(self, pixels: Sequence[Pixels]) -> Tensor:
        pooled: Tensor = self.model(pixel_values=self._squares(pixels)).pooler_output
        return pooled

    def _stock_naflex(self, pixels: Sequence[Pixels]) -> Tensor:
        longest = max(picture.cost for picture in pixels)
        pooled: Tensor = self.model(
            pixel_values=self._sequences(pixels, longest),
            pixel_attention_mask=self._real_patches(pixels, longest),
            spatial_shapes=torch.tensor([picture.grid for picture in pixels]),  # on the CPU
        ).pooler_output
        return pooled

    def _squares(self, pixels: Sequence[Pixels]) -> Tensor:
        """Values of shape (n, 3, height, width)."""
        levels = self._levels((len(pixels), *pixels[0].patches.shape))
        np.stack([picture.patches for picture in pixels], out=levels.numpy())
        return self._values(levels).permute(0, 3, 1, 2).contiguous()

    def _sequences(self, pixels: Sequence[Pixels], longest: int) -> Tensor:
        """Values of shape (n, longest, patch · patch · 3)."""
        levels = self._levels((len(pixels), longest, pixels[0].patches.shape[1]))
        for row, picture in zip(levels.numpy(), pixels, strict=True):
            row[: picture.cost] = picture.patches
        return self._values(levels)

    def _levels(self, shape: tuple[int, ...]) -> Tensor:
        """Zeros of uint8 to be filled; pinned for a GPU, so that the CPU need not wait."""
        return torch.zeros(shape, dtype=torch.uint8, pin_memory=self._place.type == "cuda")

    def _values(self, levels: Tensor) -> Tensor:
        """uint8 levels to model values, looked up on the device."""
        moved = levels.to(self._place, non_blocking=True)
        return self.table.index_select(0, moved.flatten().int()).view(moved.shape)

    def _position_rows(self, grids: Sequence[tuple[int, int]], longest: int) -> Tensor:
        """Position tables of shape (n, longest, width), zeros at padding."""
        if self.positions is None:
            raise TypeError("a fixed resolution has no grids")
        tables = [self.positions[grid] for grid in grids]
        return torch.stack([F.pad(one, (0, 0, 0, longest - len(one))) for one in tables])

    def _mask(self, pixels: Sequence[Pixels]) -> Tensor | None:
        """None where all pictures have equally many patches, so that nothing is padding."""
        costs = {picture.cost for picture in pixels}
        return None if len(costs) == 1 else self._real_patches(pixels, max(costs))

    def _real_patches(self, pixels: Sequence[Pixels], longest: int) -> Tensor:
        """(n, longest) int64: 1 at a patch, 0 at padding."""
        costs = torch.tensor([picture.cost for picture in pixels])
        return (torch.arange(longest) < costs[:, None]).long().to(self._place)


class PositionTables:
    """The position table of a NaFlex tower, resized for a grid and kept on the device.

    Keeps the grids used last, bounded by rows, for a table is as large as its grid.
    """

    def __init__(self, embeddings: Any, rows: int = KEPT_POSITIONS) -> None:
        self.weight: Tensor = embeddings.position_embedding.weight
        self.side = int(embeddings.position_embedding_size)
        self.rows = rows
        self.kept: OrderedDict[tuple[int, int], Tensor] = OrderedDict()
        self.held = 0

    def __getitem__(self, grid: tuple[int, int]) -> Tensor:
        """The table for `grid`, patches down and across: (down · across, width)."""
        found = self.kept.get(grid)
        if found is None:
            found = self.kept[grid] = self._resized(grid)
            self.held += len(found)
            self._forget()
        else:
            self.kept.move_to_end(grid)
        return found

    def _forget(self) -> None:
        while self.held > self.rows and len(self.kept) > 1:
            _, oldest = self.kept.popitem(last=False)
            self.held -= len(oldest)

    def _resized(self, grid: tuple[int, int]) -> Tensor:
        """Resized in float32 on the CPU, where the reference resizes it for a CPU model too."""
        square = self.weight.detach().float().cpu().view(1, self.side, self.side, -1)
        square = square.permute(0, 3, 1, 2)
        resized = F.interpolate(square, size=grid, mode="bilinear", antialias=True)
        return resized.flatten(2)[0].T.contiguous().to(self.weight.device, self.weight.dtype)


def _unit(pooled: Tensor) -> Vectors:
    """Unit length in float32, whatever precision the tower computes in."""
    vectors: Vectors = F.normalize(pooled.float(), dim=-1).cpu().numpy()
    return vectors


def _load(
    tower: Literal["text", "image"],
    checkpoint: Checkpoint,
    device: str,
    precision: str,
    threads: int,
) -> nn.Module:
    require_known(precision)
    if threads > 0:
        torch.set_num_threads(threads)
    place = find_device(device)
    if place.type == "cuda":
        torch.backends.cudnn.allow_tf32 = False  # else float32 convolutions keep 10 bits
    model, info = _read(tower, checkpoint, float_type(precision, place))
    wrong = [*info["missing_keys"], *info["mismatched_keys"]]
    if wrong:
        raise CheckpointError(
            f"The {tower} tower of {checkpoint.name} lacks {len(wrong)} weights: {wrong[0]} …"
        )
    return model


def _read(
    tower: Literal["text", "image"], checkpoint: Checkpoint, dtype: torch.dtype
) -> tuple[nn.Module, dict[str, Any]]:
    """The tower's module, and what transformers says of the weights it found."""
    stock = _module_class(tower, checkpoint.model_type)
    expected = {"_keys_to_ignore_on_load_unexpected": OTHER_TOWER[tower]}
    kind: Any = type(stock.__name__, (stock,), expected)
    with _quiet():
        try:
            return kind.from_pretrained(  # type: ignore[no-any-return]
                checkpoint.folder,
                dtype=dtype,
                attn_implementation="sdpa",
                local_files_only=True,
                output_loading_info=True,
            )
        except (OSError, RuntimeError, ValueError, SafetensorError) as error:
            raise CheckpointError(
                f"The {tower} tower of {checkpoint.name} cannot be loaded."
            ) from error


def _module_class(tower: Literal["text", "image"], model_type: str) -> Any:
    if model_type == "siglip":
        from transformers.models.siglip import modeling_siglip as siglip

        return siglip.SiglipTextModel if tower == "text" else siglip.SiglipVisionModel
    from transformers.models.siglip2 import modeling_siglip2 as siglip2

    return siglip2.Siglip2TextModel if tower == "text" else siglip2.Siglip2VisionModel


@contextmanager
def _quiet() -> Iterator[None]:
    """A server's log is no place for a bar or a report on sharding; `_load` judges the weights."""
    from transformers.utils import logging as library

    verbosity, bar = library.get_verbosity(), library.is_progress_bar_enabled()
    library.set_verbosity_error()
    library.disable_progress_bar()
    try:
        yield
    finally:
        library.set_verbosity(verbosity)
        if bar:
            library.enable_progress_bar()
