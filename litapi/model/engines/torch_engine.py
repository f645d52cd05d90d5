"""The towers in torch: on GPUs, as the reference everywhere, and where another engine is made from.

The weights and modules are transformers' own; only the way through them is this file's, where the
stock way does work that the result does not need:

- text: the last layer is computed for the last position alone, the only one that is pooled;
- images: levels are moved to the device as uint8 and normalised there by table; the position
  table is resized once for each grid and kept, and a batch gathers its rows at once; a batch whose
  pictures have equally many patches is neither padded nor masked, any other is padded to its
  longest.

`stock` walks transformers' own forward instead, for the check at start-up and the parity tests.
"""

from __future__ import annotations

import functools
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, Generic, Self

import numpy as np
import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own name for it

from litapi.checkpoint import Checkpoint, CheckpointError
from litapi.messages import Kind
from litapi.model.engines import Ids, Items, Rows
from litapi.model.engines.compiled import Compiled, by_inductor
from litapi.model.engines.layers import ImageBody, TextBody, join
from litapi.model.engines.positions import PositionBank
from litapi.model.engines.slots import Collect, Levels, Slot, sequences, squares
from litapi.model.engines.stream import Forward, Stream, relieve, send_copy, settle
from litapi.model.engines.toolchain import require_toolchain
from litapi.model.engines.torch_precision import arithmetic, find_device, float_type, quantize
from litapi.model.pixels import PixelMaker, Pixels
from litapi.model.precision import require_able, require_compiled
from litapi.model.probes import Probes, probe_ids, probe_pixels, unit

# Patches with their positions: (n, longest, width), and (n, longest) int64, 0 at padding.
Padded = tuple[Tensor, Tensor]
# One forward pass reads the whole checkpoint's files; the other tower's weights are no news.
OTHER_TOWER = {
    "text": [r"^vision_model\.", r"^logit_(scale|bias)$"],
    "image": [r"^text_model\.", r"^logit_(scale|bias)$"],
}


class TorchTower(Generic[Items]):
    """What both towers have in common."""

    name = "torch"
    kind: ClassVar[Kind]
    dim: int

    def __init__(self, model: Any, device: str, precision: str, compile: bool) -> None:  # noqa: A002
        """Takes `model`, a transformers module, to `device` and into `precision`."""
        self._place = find_device(device)
        self.stream = Stream(self._place)
        self.depth = self.stream.depth
        self.model = model.eval().to(self._place, float_type(precision))
        self.device = device
        self.compiled = compile
        self.precision = precision
        self.arithmetic = arithmetic(precision, self._place, compile)
        self.parameters = sum(weight.numel() for weight in model.parameters())

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
        """Load this tower alone. `threads` above 0 sets torch's threads in this process; a compiled
        NaFlex tower pads every picture to `patches`, by default the checkpoint's.

        Raises CheckpointError where weights are missing or the device, precision or compiler is
        not there.
        """
        options: dict[str, Any] = {"device": device, "precision": precision, "compile": compile}
        model = load_tower(cls.kind, checkpoint, device, precision, threads, compile)
        if cls.kind == "image":
            options["maker"] = PixelMaker(checkpoint)
            options["patches"] = patches or checkpoint.max_num_patches
        return cls(model, **options)

    @abstractmethod
    def _stock(self, items: Items, slot: Slot) -> Forward: ...

    def stock(self, items: Items) -> Rows:
        """The rows by transformers' own forward: NaFlex padded to the longest and masked."""
        return self._submit(items, self._stock)()

    def relieve(self) -> None:
        """Let the card's memory go that the allocator keeps."""
        relieve(self._place)

    def _submit(self, items: Items, way: Callable[[Items, Slot], Forward]) -> Collect:
        """`way` writes items into a slot, and returns what the device computes of it."""
        return self.stream.submit((len(items), self.dim), functools.partial(way, items))


class TorchText(TorchTower[Ids]):
    """The text tower: a Siglip(2)TextModel."""

    kind = "text"

    def __init__(
        self,
        model: Any,
        device: str = "cpu",
        precision: str = "float32",
        compile: bool = False,  # noqa: A002 - what torch calls it
    ) -> None:
        super().__init__(model, device, precision, compile)
        self.dim = int(self.model.head.out_features)
        if self._place.type != "cpu":
            join(self.model.encoder.layers[:-1])  # of the last one, fewer queries are asked
        self.body = TextBody(self.model)
        quantize(self.body, self.body.matrices(), precision)
        self._body: Callable[..., Tensor] = self._compile() if compile else self.body

    def submit(self, items: Ids) -> Collect:
        """Begin with token ids (n, 64); what is returned waits for their rows (n, dim)."""
        return self._submit(items, self._last_position)

    def probes(self) -> Probes:
        """The probes by the stock way, in this tower's own precision."""
        config = self.model.config
        ids = probe_ids(config.vocab_size, config.max_position_embeddings)
        return Probes(ids, unit(self.stock(ids)))

    def _last_position(self, items: Ids, slot: Slot) -> Forward:
        ids = slot.copy(items)
        return lambda: self._body(self.model.embeddings(input_ids=self.stream.send(ids)))

    def _stock(self, items: Ids, slot: Slot) -> Forward:
        ids = slot.copy(items)
        return lambda: self.model(input_ids=self.stream.send(ids)).pooler_output

    def _compile(self) -> Compiled:
        compiled = Compiled(TextBody(self.model, by_inductor), "text")
        length = self.model.config.max_position_embeddings
        with torch.inference_mode():
            ids = torch.zeros((1, length), dtype=torch.int64, device=self._place)
            compiled.warm(self.model.embeddings(input_ids=ids))
        return compiled


class TorchImages(TorchTower[Sequence[Pixels]]):
    """The image tower, of a fixed resolution or NaFlex: a Siglip(2)VisionModel."""

    kind = "image"

    def __init__(
        self,
        model: Any,
        maker: PixelMaker,
        device: str = "cpu",
        precision: str = "float32",
        compile: bool = False,  # noqa: A002 - what torch calls it
        patches: int = 0,
    ) -> None:
        """`maker` makes its pixels. A compiled NaFlex tower pads every picture to `patches`, by
        default as many as its position table has."""
        super().__init__(model, device, precision, compile)
        self.dim = int(self.model.config.hidden_size)
        self.naflex = hasattr(self.model.config, "num_patches")
        # In the weights' precision: the stock forward rounds each value to it all the same.
        self.maker = maker
        self.table = torch.from_numpy(maker.table).to(self._place, float_type(precision))
        self._square: Any = self._position_table() if self.naflex else None
        self.positions = PositionBank(self._resized, self._bank)
        if self._place.type != "cpu":
            join(self.model.encoder.layers)
        self.body = ImageBody(self.model)
        quantize(self.body, self.body.matrices(), precision)
        table_rows = int(self.model.embeddings.position_embedding.num_embeddings)
        self._patches = (patches if self.naflex else 0) or table_rows
        self._compiled = self._compile() if compile else None

    def submit(self, items: Sequence[Pixels]) -> Collect:
        """Begin with n pictures; what is returned waits for their rows (n, dim).

        Those too long for the compiled tower go through the plain one, behind the others.
        """
        if self._compiled is None or not self.naflex:
            return self._submit(items, self._plain if self.naflex else self._squares)
        order = sorted(range(len(items)), key=lambda row: items[row].cost > self._patches)
        collect = self._submit([items[row] for row in order], self._padded)
        return lambda: collect()[np.argsort(order)]

    def probes(self) -> Probes:
        """The probes by the stock way, in this tower's own precision."""
        pixels = probe_pixels(self.maker)
        return Probes(pixels, unit(self.stock(pixels)))

    # -- ways --------------------------------------------------------------------------------------

    def _squares(self, pixels: Sequence[Pixels], slot: Slot) -> Forward:
        levels = squares(pixels, slot)
        body = self._compiled or self.body
        return lambda: body(self.model.embeddings(self._channels(levels)))

    def _plain(self, pixels: Sequence[Pixels], slot: Slot) -> Forward:
        """Padded to the longest of them, and masked where they differ."""
        costs = {picture.cost for picture in pixels}
        embedded = self._embedded(pixels, max(costs), slot)

        def forward() -> Tensor:
            hidden, index = embedded()
            pooled: Tensor = self.body(hidden, index if len(costs) > 1 else None)
            return pooled

        return forward

    def _padded(self, pixels: Sequence[Pixels], slot: Slot) -> Forward:
        """Of the compiled size, and after them the longer ones."""
        fits = sum(picture.cost <= self._patches for picture in pixels)
        compiled, ways = self._compiled or self.body, list[Forward]()
        if fits:
            embedded = self._embedded(pixels[:fits], self._patches, slot)
            ways.append(lambda: compiled(*embedded()))
        if fits < len(pixels):
            ways.append(self._plain(pixels[fits:], slot))
        return lambda: torch.cat([way() for way in ways])

    def _stock(self, pixels: Sequence[Pixels], slot: Slot) -> Forward:
        if not self.naflex:
            levels = squares(pixels, slot)
            return lambda: self.model(pixel_values=self._channels(levels)).pooler_output
        longest = max(picture.cost for picture in pixels)
        levels = sequences(pixels, longest, slot)
        return lambda: (
            self.model(
                pixel_values=self._values(levels),
                pixel_attention_mask=_real_patches(pixels, longest).to(self._place),
                spatial_shapes=torch.tensor([picture.grid for picture in pixels]),  # on the CPU
            ).pooler_output
        )

    # -- what they share ---------------------------------------------------------------------------

    def _embedded(self, pixels: Sequence[Pixels], longest: int, slot: Slot) -> Callable[[], Padded]:
        levels = sequences(pixels, longest, slot)
        index = slot.copy(self.positions.index([picture.grid for picture in pixels], longest))
        bank = self.positions.rows

        def forward() -> Padded:
            chosen, values = self.stream.send(index), self._values(levels)
            hidden: Tensor = self.model.embeddings.patch_embedding(values)
            return hidden + F.embedding(chosen, bank), chosen

        return forward

    def _values(self, levels: Levels) -> Tensor:
        """uint8 levels to model values, looked up on the device."""
        moved = self.stream.send(levels)
        return self.table.index_select(0, moved.flatten().int()).view(moved.shape)

    def _channels(self, levels: Levels) -> Tensor:
        """The same of squares: (n, 3, height, width)."""
        return self._values(levels).permute(0, 3, 1, 2).contiguous()

    def _compile(self) -> Compiled:
        compiled = Compiled(ImageBody(self.model, by_inductor), "image")
        with torch.inference_mode():
            hidden = torch.zeros((1, self._patches, self.dim), dtype=self.table.dtype)
            mask = torch.ones((1, self._patches), dtype=torch.int64)
            item = (hidden, mask) if self.naflex else (hidden,)
            compiled.warm(*(one.to(self._place) for one in item))
        return compiled

    def _bank(self, rows: int) -> Tensor:
        return torch.empty((rows, self.dim), dtype=self.table.dtype, device=self._place)

    def _position_table(self) -> Tensor:
        """In float32 on the CPU: (1, width, side, side)."""
        embeddings = self.model.embeddings
        table: Tensor = embeddings.position_embedding.weight.detach().float().cpu()
        side = int(embeddings.position_embedding_size)
        return table.view(1, side, side, -1).permute(0, 3, 1, 2)

    def _resized(self, grid: tuple[int, int]) -> Tensor:
        """Resized in float32 on the CPU, where the reference resizes it for a CPU model too."""
        resized = F.interpolate(self._square, size=grid, mode="bilinear", antialias=True)
        return send_copy(resized.flatten(2)[0].T.to(self.table.dtype), self._place)


def _real_patches(pixels: Sequence[Pixels], longest: int) -> Tensor:
    """(n, longest) int64: 1 at a patch, 0 at padding."""
    costs = torch.tensor([picture.cost for picture in pixels])
    return (torch.arange(longest) < costs[:, None]).long()


TOWERS: Mapping[Kind, Any] = {"text": TorchText, "image": TorchImages}


def load_tower(
    tower: Kind,
    checkpoint: Checkpoint,
    device: str,
    precision: str,
    threads: int,
    compiled: bool = False,
) -> nn.Module:
    """transformers' module of one tower. Raises CheckpointError as the towers' `load`."""
    require_able(precision, device, "torch")
    require_compiled(precision, device, compiled)
    if compiled:
        require_toolchain(device)
    if threads > 0:
        torch.set_num_threads(threads)
    settle(find_device(device))
    model, info = _read(tower, checkpoint, float_type(precision))
    wrong = [*info["missing_keys"], *info["mismatched_keys"]]
    if wrong:
        raise CheckpointError(
            f"The {tower} tower of {checkpoint.name} lacks {len(wrong)} weights: {wrong[0]} …"
        )
    return model


def _read(
    tower: Kind, checkpoint: Checkpoint, dtype: torch.dtype
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


def _module_class(tower: Kind, model_type: str) -> Any:
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
