"""Random checkpoints laid out like the hub's: small ones in a folder, true sizes in memory.

A small one has its own byte-fallback BPE tokenizer with Gemma's special tokens, the files and the
settings that the hub's SigLIP 2 repositories have, and weights from a seed. The true sizes are
those of `bench.rig.random_checkpoint`; they are built one tower at a time and never saved, for
their worth here is in the parity of a forward pass.
"""

import json
import struct
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers, processors
from torch import nn

from bench.rig.random_checkpoint import SIZES as TRUE_SIZES
from bench.rig.random_checkpoint import Size

SPECIAL = ("<pad>", "<eos>", "<bos>", "<unk>", "<mask>")
WORDS = ("photo", "red", "fox", "of", "the", "cat", "dog", "blue")
SIZES = {
    "tiny-naflex": Size("siglip2", 32, 2, 2, 64, 400, patch=4, positions=16),
    "tiny-fixed": Size("siglip", 32, 2, 2, 64, 400, patch=4, image=24),
    **TRUE_SIZES,
}


@dataclass
class CheckpointMaker:
    """Builds checkpoints of a named size.

    The dictionaries are the files as they will be written: a test breaks a checkpoint by changing
    one before `write`, or changes the folder after it.
    """

    size: Size
    seed: int = 0
    specials: tuple[str, ...] = SPECIAL
    template: str = "$A <eos>"
    tokenizer_config: dict[str, Any] = field(default_factory=dict)
    preprocessor: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def named(cls, name: str, **changes: Any) -> Self:
        """The maker of one of SIZES; `changes` replace fields of its Size."""
        maker = cls(replace(SIZES[name], **changes))
        maker.tokenizer_config = hub_tokenizer_config()
        maker.preprocessor = maker.size.preprocessor()
        return maker

    def config(self) -> dict[str, Any]:
        """config.json; like the hub's, it leaves out what is transformers' default."""
        text, vision = self.size.towers()
        return {
            "model_type": self.size.model_type,
            "architectures": ["Siglip2Model" if self.size.naflex else "SiglipModel"],
            "text_config": text,
            "vision_config": vision,
        }

    def write(self, folder: Path) -> Path:
        """Write the whole checkpoint into `folder`, which is made."""
        self._write_settings(folder)
        write_weights(folder / "model.safetensors", self.full_model().state_dict())
        return folder

    def write_outline(self, folder: Path) -> Path:
        """All of a checkpoint but its weights, of which there is only a true header."""
        self._write_settings(folder)
        size = self.size
        positions = size.positions if self.size.naflex else (size.image // size.patch) ** 2
        shapes = {
            "logit_scale": (1,),
            "logit_bias": (1,),
            "text_model.embeddings.token_embedding.weight": (size.vocabulary, size.width),
            "text_model.embeddings.position_embedding.weight": (64, size.width),
            "text_model.head.weight": (size.width, size.width),
            "vision_model.embeddings.position_embedding.weight": (positions, size.width),
        }
        write_header(folder / "model.safetensors", shapes, "F32", struct.pack("<f", 1.0))
        return folder

    def _write_settings(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "config.json", self.config())
        write_json(folder / "tokenizer_config.json", self.tokenizer_config)
        write_json(folder / "preprocessor_config.json", self.preprocessor)
        self.tokenizer().save(str(folder / "tokenizer.json"))

    def full_model(self) -> Any:
        """Both towers in one transformers model, random."""
        model = self._random("Model", self.transformers_config())
        with torch.no_grad():
            model.logit_scale.fill_(2.0)
            model.logit_bias.fill_(-3.5)
        return model

    def tower(self, name: str, precision: torch.dtype = torch.float32) -> nn.Module:
        """One tower alone, "text" or "image", random, never saved."""
        part = "text" if name == "text" else "vision"
        config = getattr(self.transformers_config(), f"{part}_config")
        tower: nn.Module = self._random(f"{part.title()}Model", config).to(precision)
        return tower

    def _random(self, kind: str, config: Any) -> Any:
        torch.manual_seed(self.seed)
        return self._transformers(kind)(config).eval()

    def transformers_config(self) -> Any:
        written = self.config()
        towers = {name: written[name] for name in ("text_config", "vision_config")}
        return self._transformers("Config")(**towers)

    def _transformers(self, kind: str) -> Any:
        """A class of the library, which loads slowly."""
        import transformers

        return getattr(transformers, f"Siglip2{kind}" if self.size.naflex else f"Siglip{kind}")

    def tokenizer(self) -> Tokenizer:
        """A byte-fallback BPE of lower-case letters and a few whole words, `template` around it."""
        vocabulary, merges = _vocabulary(self.specials)
        model = models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
        tokenizer = Tokenizer(model)
        tokenizer.normalizer = normalizers.Sequence(
            [normalizers.Lowercase(), normalizers.Replace(" ", "▁")]
        )
        tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", behavior="merged_with_previous")
        special = [AddedToken(one, special=True, normalized=False) for one in self.specials]
        tokenizer.add_special_tokens(special)
        named = [(token, vocabulary[token]) for token in ("<eos>", "<bos>")]
        tokenizer.post_processor = processors.TemplateProcessing(
            single=self.template, pair=f"{self.template} $B", special_tokens=named
        )
        return tokenizer


def hub_tokenizer_config() -> dict[str, Any]:
    """tokenizer_config.json, with the settings of the hub's that matter here."""
    return {
        "tokenizer_class": "GemmaTokenizer",
        "add_bos_token": False,
        "add_eos_token": True,
        "do_lower_case": True,
        "padding_side": "right",
        "pad_token": "<pad>",
        "eos_token": "<eos>",
        "bos_token": "<bos>",
        "unk_token": "<unk>",
        "mask_token": "<mask>",
        "model_input_names": ["input_ids"],
    }


def write_weights(path: Path, weights: dict[str, torch.Tensor]) -> None:
    """A safetensors file, as transformers writes it but without its progress bar."""
    whole = {name: weight.contiguous() for name, weight in weights.items()}
    save_file(whole, path, {"format": "pt"})


def write_header(path: Path, shapes: dict[str, tuple[int, ...]], dtype: str, data: bytes) -> None:
    """A safetensors file whose tensors all start at the first byte of `data`.

    No library would load it, but its header is true to any size without the gigabytes.
    """
    entries = {
        name: {"dtype": dtype, "shape": list(shape), "data_offsets": [0, len(data)]}
        for name, shape in shapes.items()
    }
    header = json.dumps(entries).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + data)


def write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=1), encoding="utf-8")


def edit_json(path: Path, **changes: object) -> None:
    """Change keys of a JSON file; a value of None takes the key out."""
    value = json.loads(path.read_text(encoding="utf-8")) | changes
    write_json(path, {key: entry for key, entry in value.items() if entry is not None})


def _vocabulary(specials: tuple[str, ...]) -> tuple[dict[str, int], list[tuple[str, str]]]:
    letters = [*"▁abcdefghijklmnopqrstuvwxyz0123456789.,"]
    tokens = [*specials, *(f"<0x{byte:02X}>" for byte in range(256)), *letters]
    merges: list[tuple[str, str]] = []
    for word in WORDS:
        for end in range(2, len(word) + 1):
            pair = (word[: end - 1], word[end - 1])
            if pair not in merges:
                merges.append(pair)
                tokens.append(word[:end])
    return {token: index for index, token in enumerate(dict.fromkeys(tokens))}, merges
