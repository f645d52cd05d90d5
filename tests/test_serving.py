"""What is served: its name, its fingerprints, and what /info tells of it.

The fingerprint walk is the guard of the cache: an option or a fact of a checkpoint that could
change a vector must change the keys, or old vectors would be served as new ones. Each field is
therefore either walked, or listed here with the reason why it cannot change a vector.
"""

import json
import re
import shutil
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from cache import key
from litapi import checkpoint as module
from litapi import serving as service_module
from litapi.checkpoint import DEMO, Checkpoint
from litapi.errors import public_errors
from litapi.messages import KINDS, Kind
from litapi.quality.fidelity import Fidelity, Judged
from litapi.serving import Service
from litapi.settings import Settings
from tests.support.checkpoint import edit_json

DEFAULTS = Settings.read({}, {})
CHECKPOINT = Checkpoint.open(DEMO)
BOTH = frozenset(KINDS)
NONE, TEXT, IMAGE = frozenset[str](), frozenset({"text"}), frozenset({"image"})

# option → another value of it, and the kinds whose vectors it may change
CHANGES: dict[str, tuple[Any, frozenset[str]]] = {
    "precision": ("bfloat16", BOTH), "text_precision": ("int8", TEXT),
    "image_precision": ("int8", IMAGE), "compile": ("on", BOTH), "max_num_patches": (64, IMAGE),
    "jpeg_draft": (True, IMAGE), "cache_epoch": ("2", BOTH), "cache_tenant": ("acme", BOTH),
}  # fmt: skip
# why no vector depends on some options → another value of each
CANNOT_CHANGE: dict[str, dict[str, Any]] = {
    "chooses the checkpoint, whose name, revision and digests are in the fingerprint": {
        "model": "a/b", "revision": "main",
    },
    "is what clients call the model, not which one it is": {"served_name": "c"},
    "is where the server listens, and how connections are sealed and kept": {
        "host": "127.0.0.1", "port": 9000, "tls_cert": "a.pem", "tls_key": "a.key",
        "keep_alive": 600,
    },
    "says who may ask, how much and how often": {
        "api_keys": "k", "api_keys_file": "", "key_limits": "* items=5", "max_wrong_keys": 5,
        "rate_limit": 5.0, "cors_origins": "https://a.example", "cors_private_network": "on",
    },
    "makes a fingerprint of each key's own of these": {"cache_per_key": "on"},
    "is a way for bytes to come in; the bytes are the key": {
        "image_urls": "any-public", "image_url_hosts": "a.example", "image_url_private": "on",
    },
    "runs the towers, and says so in the arithmetic, which is walked": {"engine": "torch"},
    "is where towers are kept; what they compute in is walked": {"compile_cache": "a"},
    "lets a precision be served; which one is walked": {"accept_loss": "on"},
    "gives int8 its scales, whose digest is in the arithmetic, which is walked": {"pairs": "a"},
    "gives probabilities of cosines, which it leaves as they are": {"calibration": "a.json"},
    "the same number format on another device; precision is walked": {"devices": "cuda:0"},
    "counts equal workers, or processes that compute nothing": {
        "text_workers": 2, "image_workers": 2, "decode_threads": 2, "http_workers": 2,
        "bulk_workers": "off",
    },
    "splits the same sums": {"threads": 2},
    "is how much is fetched or decoded at once, and refuses": {
        "image_url_mb": 64, "max_pixels_in_flight": 7, "decode_mb": 7, "decode_timeout": 1.0,
    },
    "refuses; what is decoded is decoded the same way": {"image_formats": "png"},
    "breaks workers on purpose; what survives is computed the same way": {"test_hooks": "on"},
    "is when something is given up, replaced or asked for again": {
        "image_url_timeout": 1.0, "timeout": 1.0, "start_timeout": 1.0, "drain_timeout": 1,
        "hang_timeout": 1.0, "header_timeout": 1.0, "body_timeout": 1.0, "probe_interval": 1.0,
    },
    "is whether, where and for how long vectors are kept, not which": {
        "max_answers_mb": 8, "cache": "off", "digest_lookups": "off", "redis_url": "redis://a",
        "redis_private": "off", "redis_private_mb": 1, "memory_cache_mb": 1,
        "redis_budget_ms": 1.0, "answer_cache_mb": 1, "cache_ttl_days": 1.0,
    },
    "is what is written down, and where": {
        "log_level": "debug", "access_log": "on", "log_format": "json",
        "otlp_endpoint": "http://a",
    },
    "is how many are computed together, and vectors are the same alone or in a batch": {
        "text_batch_tokens": 64, "image_batch_patches": 64,
    },
    "refuses; nothing is cut or shrunk to fit, and what is refused is not kept": {
        "max_queue": 8, "max_queue_mb": 8, "max_wait": 1.0, "max_bodies_mb": 8, "max_items": 8,
        "max_text_chars": 8, "max_request_chars": 1 << 18, "max_num_patches_asked": 8,
        "max_image_bytes": 8, "max_pixels": 8, "max_body_bytes": 8, "max_header_bytes": 4096,
    },
}  # fmt: skip
OPTIONS = [
    *((name, value, kinds) for name, (value, kinds) in CHANGES.items()),
    *((name, value, NONE) for options in CANNOT_CHANGE.values() for name, value in options.items()),
]

# fact of a checkpoint, another value of it, and the kinds whose vectors it may change
FACTS: list[tuple[str, Any, frozenset[str]]] = [
    ("name", "another", BOTH), ("revision", "another", BOTH), ("model_type", "siglip", BOTH),
    ("dim", 1, BOTH), ("weights_digest", "0" * 64, BOTH), ("config_digest", "0" * 64, BOTH),
    ("tokenizer_digest", "0" * 64, TEXT), ("preprocessing_digest", "0" * 64, IMAGE),
    ("max_num_patches", 1, IMAGE), ("text_length", 1, TEXT),
    ("folder", Path("elsewhere"), NONE),  # the same files in another place
    ("logit_scale", 1.0, NONE), ("logit_bias", 1.0, NONE),  # are applied to cosines
    ("image_size", 1, NONE),  # follows from the preprocessing and the position embeddings
    ("patch_size", 1, NONE),  # follows from the preprocessing and the patch embedding
    ("vocabulary", 1, NONE),  # is a size of the weights
    ("space", "0" * 16, NONE),  # is made of the digests, which are walked
    ("text_gflop", 1.0, NONE), ("image_gflop", 1.0, NONE),  # are estimates of cost
    ("stamp", ((("config.json", 1, 1),)), NONE),  # whether the files are still those of the digests
]  # fmt: skip


def serve(checkpoint: Checkpoint = CHECKPOINT, **options: Any) -> Service:
    return Service(Settings.read(options, {}), checkpoint)


def changed(one: Service, other: Service) -> set[Kind]:
    """The kinds whose cache keys differ between two services."""
    before, after = one.fingerprints(), other.fingerprints()
    assert all(key(before[k], k[0], b"x") == key(after[k], k[0], b"x") for k in KINDS) == (
        before == after
    )
    return {kind for kind in KINDS if before[kind] != after[kind]}


def test_every_option_and_every_fact_is_walked_or_listed_with_its_reason() -> None:
    """A new one must be judged before it can be merged."""
    assert sorted(name for name, _, _ in OPTIONS) == sorted(Settings.model_fields)
    assert sorted(name for name, _, _ in FACTS) == sorted(one.name for one in fields(Checkpoint))


@pytest.mark.parametrize(("name", "value", "kinds"), OPTIONS)
def test_an_option_changes_the_keys_that_it_must(
    name: str, value: Any, kinds: frozenset[str]
) -> None:
    """Exactly those are asked for anew; a restart with another port finds a warm cache. All are of
    one space: keys keep vectors apart to the bit, and whoever compares them need not."""
    other = serve(**{name: value})
    assert getattr(other.settings, name) != getattr(DEFAULTS, name), "the walk took no step"
    assert changed(serve(), other) == kinds
    assert other.info()["model"]["space"] == CHECKPOINT.space


@pytest.mark.parametrize(("name", "value", "kinds"), FACTS)
def test_a_fact_changes_the_keys_that_it_must(name: str, value: Any, kinds: frozenset[str]) -> None:
    """Other weights, another tokenizer, other pixels: never another's vectors."""
    assert changed(serve(), serve(replace(CHECKPOINT, **{name: value}))) == kinds


@pytest.mark.parametrize(
    ("tower", "entries", "kinds"),
    [
        ("text_config", {"num_attention_heads": 1}, TEXT),
        ("text_config", {"layer_norm_eps": 0.5}, TEXT),
        ("text_config", {"hidden_act": "relu"}, TEXT),
        ("vision_config", {"num_attention_heads": 1}, IMAGE),
        ("vision_config", {"num_hidden_layers": 1}, IMAGE),
        ("text_config", {}, NONE),
    ],
)
def test_the_same_weights_under_another_config_have_other_keys(
    tmp_path: Path, tower: str, entries: dict[str, Any], kinds: frozenset[str]
) -> None:
    """What config.json says of a tower changes its vectors as much as the weights do; a copy has
    the same keys, so that two servers with copies of one model share a Redis."""
    file = shutil.copytree(DEMO, tmp_path / "copy") / "config.json"
    config = json.loads(file.read_text())
    edit_json(file, **{tower: config[tower] | entries})
    other = serve(Checkpoint.open(file.parent, CHECKPOINT.name, CHECKPOINT.revision))
    assert kinds <= changed(serve(), other)
    assert kinds or changed(serve(), other) == set()


def test_text_and_image_have_fingerprints_of_their_own_that_every_process_makes_alike() -> None:
    """Their vectors are not interchangeable; and no order of a set or time of day is in it."""
    fingerprints = serve().fingerprints()
    assert set(fingerprints) == set(KINDS)
    assert fingerprints["text"] != fingerprints["image"]
    assert fingerprints == serve().fingerprints()


def test_the_precision_that_a_worker_chose_counts_and_not_the_wish() -> None:
    """`auto` is another number format on another machine, and they may share a Redis."""
    auto, chosen = serve(), serve(precision="bfloat16")
    auto.precision = {"text": "bfloat16", "image": "float32"}
    assert changed(auto, chosen) == {"image"}
    chosen.precision = {"text": "bfloat16", "image": "float32"}
    assert changed(auto, chosen) == set()


def test_what_a_worker_says_of_its_arithmetic_counts() -> None:
    """int8 of other scales is another int8; a compiled tower is not a plain one."""
    plain, other = serve(text_precision="int8"), serve(text_precision="int8")
    other.arithmetic = {"text": "int8, openvino 2026.4.1, scales 5ca1e5", "image": "auto"}
    assert changed(plain, other) == {"text"}
    assert changed(serve(compile="on"), serve()) == BOTH
    assert changed(serve(), serve(max_num_patches=CHECKPOINT.max_num_patches)) == set()


@pytest.mark.parametrize(("compiled", "differ"), [("on", True), ("off", False)])
def test_what_a_compiled_tower_pads_to_is_in_every_key(compiled: str, differ: bool) -> None:
    """A picture asked for in few patches is computed among as many as the server has."""
    one, other = (
        serve(compile=compiled, max_num_patches=n).fingerprints()["image"].derive(max_num_patches=9)
        for n in (64, 128)
    )
    assert (one != other) is differ


@pytest.mark.parametrize(
    ("name", "kinds"), [("TOKENIZING_VERSION", TEXT), ("PREPROCESSING_VERSION", IMAGE)]
)
def test_a_change_of_our_own_preparation_changes_the_keys(
    monkeypatch: pytest.MonkeyPatch, name: str, kinds: frozenset[str]
) -> None:
    """Code that makes other pixels of the same picture raises a number: the cache starts anew."""
    monkeypatch.setattr(module, name, getattr(module, name) + 1)
    other = Checkpoint.open(CHECKPOINT.folder)
    assert changed(serve(), serve(other)) == kinds
    assert other.space != CHECKPOINT.space


@pytest.mark.parametrize(
    ("served_name", "asked", "answers"),
    [
        (None, "google/siglip2-base", True), (None, "siglip2-base", True), (None, "google", False),
        (None, "siglip2", False), (None, "", False), (None, "GOOGLE/SIGLIP2-BASE", False),
        ("team/embedder", "team/embedder", True), ("team/embedder", "embedder", True),
        ("team/embedder", "google/siglip2-base", True),
        ("team/embedder", "text-embedding-3-small", False),
    ],
)  # fmt: skip
def test_a_model_answers_to_its_names(served_name: str | None, asked: str, answers: bool) -> None:
    """The served name, its last part, and the checkpoint's own; nothing that only looks alike."""
    service = serve(replace(CHECKPOINT, name="google/siglip2-base"), served_name=served_name)
    assert service.name == (served_name or "google/siglip2-base")
    assert service.answers_to(asked) is answers
    for name in ("/models/mine/", "team/"):  # as folders are often written
        assert not serve(replace(CHECKPOINT, name=name)).answers_to("")


def running() -> Service:
    """A service as it is once its workers have loaded."""
    service = serve()
    service.precision = {"text": "float32", "image": "bfloat16"}
    service.workers = [
        {"tower": "text", "device": "cuda:1", "precision": "float32"},
        {"tower": "image", "device": "cuda:0", "precision": "bfloat16"},
        {"tower": "image", "device": "cuda:1", "precision": "bfloat16"},
    ]
    service.cache_tiers = ("memory", "redis (shared)")
    return service


def test_info_tells_what_a_client_needs_to_use_and_to_compare_vectors() -> None:
    """As JSON; servers whose fingerprints agree may share a cache; each device is named once."""
    info = orjson.loads(orjson.dumps(running().info()))
    model = info["model"]
    expected = {
        "name": CHECKPOINT.name,
        "revision": CHECKPOINT.revision,
        "dimension": CHECKPOINT.dim,
        "type": CHECKPOINT.model_type,
        "precision": {"text": "float32", "image": "bfloat16"},
        "logit_scale": CHECKPOINT.logit_scale,
        "logit_bias": CHECKPOINT.logit_bias,
        "space": CHECKPOINT.space,
        "weights_sha256": CHECKPOINT.weights_digest,
        "fingerprint": {kind: f.hex for kind, f in running().fingerprints().items()},
    }
    assert model | expected == model
    assert "not trained for shortened vectors" in model["dimensions_note"]
    assert all(re.fullmatch("[0-9a-f]{64}", one) for one in model["fingerprint"].values())
    assert (info["devices"], len(info["workers"])) == (["cuda:0", "cuda:1"], 3)
    assert info["cache"]["tiers"] == ["memory", "redis (shared)"]
    assert info["version"] == service_module.VERSION


def test_info_tells_what_a_precision_is_worth() -> None:
    """The gate's figures, where there was one; nothing is said of what needs no proof."""
    assert serve().info()["model"]["quality"] is None
    service, vectors = serve(compile="on"), np.eye(4, dtype=np.float32)
    assert service.info()["model"]["compiled"] is False  # before a worker says so: a CPU's is not
    service.workers = [{"device": "cuda:0", "compiled": True}]
    judged = Judged(vectors, vectors, vectors[:0])
    service.quality = Fidelity.of(judged, judged, [], 10.0, -5.0)
    model = orjson.loads(orjson.dumps(service.info()))["model"]
    shown = model["compiled"], model["quality"]["passed"], model["quality"]["pairs"]
    assert shown == (True, True, 4)


def shown(**facts: Any) -> dict[str, Any]:
    """What /info says of the demo, or of a checkpoint with other facts."""
    return serve(replace(CHECKPOINT, **facts)).info()["model"]  # type: ignore[no-any-return]


def test_info_says_that_the_demo_is_a_demo() -> None:
    """Nobody takes the small checkpoint for the real one; a real one carries no such note."""
    demo, real = shown(), shown(folder=Path("/models/real"))
    assert (demo["demo"], real["demo"], real["note"]) == (True, False, None)
    assert "MODEL=" in demo["note"]


def test_a_naflex_model_has_patches_and_a_fixed_one_a_size() -> None:
    """`image_size` of a model that keeps the aspect ratio would be a lie."""
    naflex, fixed = shown(model_type="siglip2"), shown(model_type="siglip")
    assert (naflex["naflex"], naflex["image_size"]) == (True, None)
    assert (fixed["naflex"], fixed["image_size"]) == (False, CHECKPOINT.image_size)
    assert serve(max_num_patches=64).info()["model"]["max_num_patches"] == 64


def test_every_refusal_that_points_to_info_finds_its_limit_there() -> None:
    """ "/info states the limit" is a promise of the sentences in the error table."""
    limits = {
        "body_too_large": ("body_bytes", "max_body_bytes", 3),
        "too_many_items": ("items", "max_items", 4),
        "text_too_long": ("text_chars", "max_text_chars", 5),
        "image_too_large": ("image_bytes", "max_image_bytes", 6),
        "image_too_many_pixels": ("image_pixels", "max_pixels", 7),
        "image_format_unsupported": ("image_formats", "image_formats", ["png", "gif"]),
    }
    pointing = {one.code for one in public_errors() if "/info" in one.sentence}
    assert pointing == limits.keys()
    options: dict[str, Any] = {option: value for _, option, value in limits.values()}
    shown = serve(**options).info()["limits"]
    assert shown | {name: value for name, _, value in limits.values()} == shown


def test_info_holds_no_secret() -> None:
    """Keys, salts and addresses stay inside, whoever asks."""
    secrets: dict[str, Any] = {
        "cache_tenant": "tenant-salt", "redis_url": "redis://user:password@redis.internal:6379",
        "api_keys": "key-one,key-two", "tls_key": "/secret/tls.key",
        "otlp_endpoint": "http://collector.internal",
    }  # fmt: skip
    text = orjson.dumps(serve(**secrets).info()).decode()
    for secret in ("tenant-salt", "password", "internal", "key-one", "key-two", "/secret"):
        assert secret not in text
    assert str(DEMO) not in text
