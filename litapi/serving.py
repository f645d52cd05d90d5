"""What is served, as /info tells it: model, limits, workers, cache. Facts only, no work."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from dataclasses import field as default
from hashlib import sha256
from typing import Any

from cache import Fingerprint
from cache.key import Field
from litapi.calibration import Calibration
from litapi.checkpoint import Checkpoint
from litapi.messages import KINDS, Kind
from litapi.metrics import lacks_room
from litapi.quality.fidelity import Fidelity
from litapi.scoring import Scoring, Sigmoid
from litapi.settings import Settings

VERSION = "0.1.0"
DEMO_NOTE = (
    "This is the small demo checkpoint: it knows drawn shapes only. Serve a real one with"
    " MODEL=google/siglip2-so400m-patch16-naflex or a folder."
)
NO_ROOM = "The temporary folder has no room for metrics: some are missing in /metrics."
DIGEST_NOTE = (
    "Whoever has only the sha256 of an image learns whether it was embedded here lately, and its"
    " vector. API keys say who may ask; cache_per_key and cache_tenant bound what is found."
)
DIMENSIONS_NOTE = (
    "SigLIP2 is not trained for shortened vectors: dimensions cuts and renormalises, at a cost in"
    " retrieval quality."
)

LIKENESS_NOTE = (
    "SigLIP2 was trained to tell whether a text and an image belong together. It is not trained to"
    " compare two texts or two images: there /rerank gives their cosine, scaled to 0…1."
)


@dataclass(slots=True)
class Service:
    settings: Settings
    checkpoint: Checkpoint
    precision: dict[Kind, str] = default(default_factory=dict)
    arithmetic: dict[Kind, str] = default(default_factory=dict)  # what decides a vector's bits
    quality: Fidelity | None = None  # beside float32, where the precision must show it
    calibration: Calibration | None = None  # of the probabilities
    workers: list[dict[str, Any]] = default(default_factory=list)
    cache_tiers: tuple[str, ...] = ()
    cache_problems: Callable[[], list[str]] = list  # of this process's connections, at present
    notices: list[str] = default(default_factory=list)  # what is not as its operator may think

    @property
    def name(self) -> str:
        return self.settings.served_name or self.checkpoint.name

    @property
    def patches(self) -> int:
        """Patches of an image where a request asks for no number."""
        return self.settings.max_num_patches or self.checkpoint.max_num_patches

    @property
    def compiled(self) -> bool:
        """Whether the towers are; on a CPU they never are."""
        return any(worker.get("compiled") for worker in self.workers)

    @property
    def scoring(self) -> Scoring:
        own = Sigmoid(self.checkpoint.logit_scale, self.checkpoint.logit_bias)
        found = self.calibration
        return Scoring(own, found.sigmoid, found.threshold) if found else Scoring(own)

    def answers_to(self, model: str) -> bool:
        return bool(model) and model in (
            self.name,
            self.checkpoint.name,
            self.name.rpartition("/")[2],
        )

    def fingerprints(self, owner: str = "") -> dict[Kind, Fingerprint]:
        """For each kind, everything that can change one of its vectors. With an `owner`, vectors
        get names that no other one's have."""
        prints = {kind: self._fingerprint(kind) for kind in KINDS}
        if not owner:
            return prints
        return {kind: one.derive(owner=owner) for kind, one in prints.items()}

    def _fingerprint(self, kind: Kind) -> Fingerprint:
        checkpoint, settings = self.checkpoint, self.settings
        shared: dict[str, Field] = {
            "checkpoint": checkpoint.name,
            "revision": checkpoint.revision,
            "weights": checkpoint.weights_digest,
            "config": checkpoint.config_digest,
            "model_type": checkpoint.model_type,
            "dim": checkpoint.dim,
            "precision": self._arithmetic(kind),
            "pooling": "pooled output, unit length",
            "epoch": settings.cache_epoch,
            "tenant": settings.cache_tenant,
        }
        if kind == "text":
            own: dict[str, Field] = {
                "tokenizer": checkpoint.tokenizer_digest,
                "length": checkpoint.text_length,
            }
        else:
            own = {
                "preprocessing": checkpoint.preprocessing_digest,
                "draft": settings.jpeg_draft,
                "max_num_patches": self.patches,
            }
            if settings.compile == "on":  # whatever a request asks for, it is padded to this
                own["padded_to"] = self.patches
        return Fingerprint.of({**shared, **own})

    def _arithmetic(self, kind: Kind) -> str:
        """As a worker reported it; before that, as the options ask for it."""
        compiled = ", compiled" if self.settings.compile == "on" else ""
        asked = self.precision.get(kind, self.settings.precision_of(kind)) + compiled
        return self.arithmetic.get(kind, asked)

    def info(self) -> dict[str, Any]:
        return {
            "version": VERSION,
            "model": self._model(),
            "limits": self._limits(),
            "workers": self.workers,
            "devices": sorted({worker["device"] for worker in self.workers}),
            "cache": {
                "tiers": list(self.cache_tiers),
                "problems": self.cache_problems(),
                "digest_lookups": self.settings.digests,
                "digest_note": DIGEST_NOTE if self.settings.digests else None,
            },
            "problems": [*self.notices, *([NO_ROOM] if lacks_room() else [])],
        }

    def _model(self) -> dict[str, Any]:
        checkpoint, quality = self.checkpoint, self.quality
        return {
            "name": self.name,
            "revision": checkpoint.revision,
            "type": checkpoint.model_type,
            "naflex": checkpoint.naflex,
            "demo": checkpoint.is_demo,
            "note": DEMO_NOTE if checkpoint.is_demo else None,
            "dimension": checkpoint.dim,
            "dimensions_note": DIMENSIONS_NOTE,
            "likeness_note": LIKENESS_NOTE,
            "precision": self.precision,
            "compiled": self.compiled,
            "quality": quality and {"passed": quality.passed, **quality.fields()},
            "logit_scale": checkpoint.logit_scale,
            "logit_bias": checkpoint.logit_bias,
            "calibration": self.calibration and self.calibration.told(),
            "text_length": checkpoint.text_length,
            "image_size": None if checkpoint.naflex else checkpoint.image_size,
            "patch_size": checkpoint.patch_size,
            "max_num_patches": self.patches,
            "space": checkpoint.space,
            "weights_sha256": checkpoint.weights_digest,
            "fingerprint": {kind: f.hex for kind, f in self.fingerprints().items()},
        }

    def _limits(self) -> dict[str, Any]:
        settings = self.settings
        return {
            "items": settings.max_items,
            "text_chars": settings.max_text_chars,
            "request_chars": settings.max_request_chars,
            "num_patches": settings.most_patches if self.checkpoint.naflex else None,
            "image_bytes": settings.max_image_bytes,
            "image_pixels": settings.max_pixels,
            "image_formats": list(settings.image_formats),
            "body_bytes": settings.max_body_bytes,
            "timeout_seconds": settings.timeout,
        }


def seal(tenant: str) -> bytes:
    """The secret that authenticates the values of a tenant in Redis; empty without a tenant."""
    return sha256(b"siglit values\0" + tenant.encode()).digest() if tenant else b""
