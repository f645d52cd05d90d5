"""siglit: SigLIP2 embeddings over HTTP. Importing this package never loads torch."""

import logging
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from litapi.engine import Engine

__all__ = ["Engine"]

# transformers imports torchao wherever it finds it, and that tells of kernels for other devices.
for _name in ("torchao", "torch.utils._pytree"):
    logging.getLogger(_name).setLevel(logging.ERROR)


def __getattr__(name: str) -> Any:
    """`from litapi import Engine`, which loads what an engine needs and nothing sooner."""
    if name != "Engine":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from litapi.engine import Engine

    return Engine
