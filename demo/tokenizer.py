"""A small BPE tokenizer in the form of SigLIP2's.

transformers rebuilds `Siglip2Tokenizer` for this model type whatever the file says: BPE with byte
fallback, lower-casing, spaces turned into "▁", and no split into words. So the merges must not
cross words by themselves: they are learned from text split *before* each "▁" and around
punctuation, hence none of them holds a "▁" except at its start. Bytes come after the five special
tokens, as in Gemma's vocabulary, so that any text at all has tokens.
"""

import json
from collections.abc import Iterable

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import Siglip2Tokenizer

SPECIALS = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
CHARACTERS = [chr(code) for code in range(33, 127) if not chr(code).isupper()]
POSITIONS = 64


def train(captions: Iterable[str], vocab_size: int = 704) -> Siglip2Tokenizer:
    vocab, merges = _learn(captions, vocab_size - len(BYTES))
    vocab = _with_bytes(vocab)
    return Siglip2Tokenizer(
        vocab=vocab,
        merges=merges,
        add_bos_token=False,
        add_eos_token=True,
        padding_side="right",
        model_max_length=POSITIONS,
        model_input_names=["input_ids"],
        do_lower_case=True,
        clean_up_tokenization_spaces=False,
    )


def _learn(
    captions: Iterable[str], vocab_size: int
) -> tuple[dict[str, int], list[tuple[str, str]]]:
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Lowercase(), normalizers.Replace(" ", "▁")]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Split(
        Regex("▁?[a-z]+|▁?[0-9]|[^a-z0-9▁]|▁"), behavior="isolated"
    )
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=SPECIALS,
        initial_alphabet=["▁", *CHARACTERS],
        show_progress=False,
    )
    tokenizer.train_from_iterator(captions, trainer)
    model = json.loads(tokenizer.to_str())["model"]
    return model["vocab"], [(left, right) for left, right in model["merges"]]


def _with_bytes(vocab: dict[str, int]) -> dict[str, int]:
    ordered = sorted(vocab, key=vocab.__getitem__)
    tokens = [*SPECIALS, *BYTES, *ordered[len(SPECIALS) :]]
    return {token: index for index, token in enumerate(tokens)}
