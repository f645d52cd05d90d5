"""What a GPU is told and sent, on machines without one: torch's meta device stands for the card.

It computes shapes and holds no values, so whatever asks it for one fails, where a card would let
its worker wait.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from litapi.checkpoint import DEMO, Checkpoint
from litapi.messages import Kind
from litapi.model.encoder import TextEncoder
from litapi.model.engines import stream, torch_engine
from litapi.model.engines.positions import PositionBank
from litapi.model.engines.slots import Slot
from litapi.model.engines.stream import Stream
from litapi.model.engines.torch_engine import TorchImages, TorchText, load_tower
from litapi.model.pixels import PixelMaker, Pixels
from tests.support.inputs import own_ids, pictures

CHECKPOINT = Checkpoint.open(DEMO)
ATTENTION: Any = torch.backends.cuda
META = torch.device("meta")
FEW, MANY = 16, 64  # patches of a picture


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What happens, in its order, while a tower is loaded for a card that there seems to be."""
    before = ATTENTION.cudnn_sdp_enabled(), torch.backends.cudnn.allow_tf32
    events: list[str] = []
    read = torch_engine._read

    def reading(*args: Any) -> Any:
        events.append("read")
        return read(*args)

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: events.append(f"use {device}"))
    monkeypatch.setattr(torch_engine, "_read", reading)
    yield events
    ATTENTION.enable_cudnn_sdp(before[0])
    torch.backends.cudnn.allow_tf32 = before[1]


@pytest.mark.parametrize("tower", ["text", "image"])
def test_a_worker_takes_its_card_before_anything_is_allocated(told: list[str], tower: Kind) -> None:
    """Or a part of it would lie on the first card."""
    load_tower(tower, CHECKPOINT, "cuda:1", "bfloat16", 0)
    assert told == ["use cuda:1", "read"]


def test_attention_is_not_planned_anew_for_each_shape(told: list[str]) -> None:
    """cuDNN would; flash attention and the memory-efficient kernel, which are left, do not."""
    ATTENTION.enable_cudnn_sdp(True)
    load_tower("image", CHECKPOINT, "cuda:0", "bfloat16", 0)
    assert not ATTENTION.cudnn_sdp_enabled()
    assert not torch.backends.cudnn.allow_tf32
    assert ATTENTION.flash_sdp_enabled()
    assert ATTENTION.mem_efficient_sdp_enabled()


def test_nothing_is_set_for_a_cpu(told: list[str]) -> None:
    """Its towers may share a process with others of torch's."""
    ATTENTION.enable_cudnn_sdp(True)
    load_tower("image", CHECKPOINT, "cpu", "float32", 0)
    assert ATTENTION.cudnn_sdp_enabled()
    assert told == ["read"]


def test_memory_that_nobody_holds_is_given_back_to_the_card(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """After a batch that found too little; a CPU has nothing of the kind."""
    emptied: list[bool] = []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: emptied.append(True))
    encoder = TextEncoder.load(CHECKPOINT, engine="torch")
    encoder.relieve()
    assert not emptied
    encoder.engine._place = torch.device("cuda:0")  # type: ignore[attr-defined]
    encoder.relieve()
    assert emptied


class Sent(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the copies to the card, each of which must be made without waiting."""

    def __init__(self, given: set[int]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.given, self.bytes = given, [0]

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        found = func(*args, **(kwargs or {}))
        if self._crosses(args, found):
            assert (kwargs or {}).get("non_blocking"), f"{func} copies to the card, and waits"
            assert args[0].untyped_storage().data_ptr() in self.given, "from pageable memory"
            self.bytes.append(args[0].nbytes)
        return found

    @staticmethod
    def _crosses(args: Sequence[Any], found: Any) -> bool:
        host = [one for one in args if isinstance(one, Tensor) and one.device.type == "cpu"]
        card = isinstance(found, Tensor) and found.device == META
        return card and any(one.ndim or one.nbytes > 8 for one in host)


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> Sent:
    """Copies to the card, which must be of memory that is pinned for a card."""
    given: set[int] = set()
    plain = stream.host_memory

    def pinned(place: torch.device, shape: Sequence[int], kind: torch.dtype) -> Tensor:
        assert place == META
        host = plain(place, shape, kind)
        kept.append(host)
        given.add(host.untyped_storage().data_ptr())
        return host

    kept: list[Tensor] = []  # or its address would be used again
    monkeypatch.setattr(stream, "host_memory", pinned)
    return Sent(given)


def test_what_is_sent_to_a_card_is_pinned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else torch copies it once more, and waits; a CPU needs no such memory."""
    asked: list[bool] = []
    zeros = torch.zeros

    def recording(*args: Any, pin_memory: bool, **options: Any) -> Tensor:
        asked.append(pin_memory)
        return zeros(*args, **options)

    monkeypatch.setattr(torch, "zeros", recording)
    for name in ("cuda:0", "cpu"):
        stream.host_memory(torch.device(name), (2, 3), torch.uint8)
    assert asked == [True, False]


def on_the_card(tower: Any) -> Any:
    """The tower, moved to the card after it was loaded for a CPU."""
    tower.model.to(META)
    tower._place, tower.stream = META, Stream(META)
    return tower


def memory(tower: Any) -> Slot:
    """A slot of its stream's."""
    return Slot(tower.stream._memory)


def images(monkeypatch: pytest.MonkeyPatch, compiled: bool) -> TorchImages:
    """An image tower; what is compiled is its plain body, for here is no card to compile for."""
    monkeypatch.setattr(torch, "compile", lambda body, **_: body)
    return TorchImages.load(CHECKPOINT, compile=compiled, patches=FEW)


def unlike() -> list[Pixels]:
    """Pictures of few and of many patches, in no order."""
    maker = PixelMaker(CHECKPOINT)
    return [maker.make(one, FEW if row % 3 else MANY) for row, one in enumerate(pictures(11))]


@torch.inference_mode()
def test_texts_are_computed_without_waiting_for_the_card(sent: Sent) -> None:
    """But for the rows, at the end."""
    tower = on_the_card(TorchText.load(CHECKPOINT))
    ids = own_ids(CHECKPOINT, ["a red circle", "two blue squares"])
    with sent:
        rows = tower._last_position(ids, memory(tower))()
    assert (rows.shape, rows.device) == ((2, tower.dim), META)
    assert sum(sent.bytes) == ids.nbytes


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
@pytest.mark.parametrize("choose", [slice(None), slice(0, 1), slice(-1, None)])
@torch.inference_mode()
def test_pictures_are_computed_without_waiting_for_the_card(
    sent: Sent, monkeypatch: pytest.MonkeyPatch, compiled: bool, choose: slice
) -> None:
    """Neither a mask nor an order of pictures is read back, nor copied from pageable memory."""
    tower = images(monkeypatch, compiled)
    tower.table = tower.table.to(META)
    tower = on_the_card(tower)
    pixels = sorted(unlike(), key=lambda picture: picture.cost)[choose]
    tower.positions = PositionBank(tower._resized, tower._bank)  # which knows no grid yet
    with sent:
        rows = (tower._padded if compiled else tower._plain)(pixels, memory(tower))()
    assert (rows.shape, rows.device) == ((len(pixels), tower.dim), META)
    assert sum(sent.bytes) >= sum(picture.patches.nbytes for picture in pixels)


def test_pictures_too_long_for_a_compiled_tower_keep_their_places(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They go another way than the rest of the batch, and come back between them."""
    pixels = unlike()
    plain, compiled = (images(monkeypatch, one).submit(pixels)() for one in (False, True))
    assert np.abs(plain - compiled).max() <= 1e-5
