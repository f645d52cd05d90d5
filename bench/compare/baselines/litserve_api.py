"""LitServe as its documentation shows it: one API for each kind, its own batching, its own loop.

CHECKPOINT=FOLDER python -m bench.compare.baselines.litserve_api PORT
"""

from __future__ import annotations

import os
import sys
from typing import Any

from litserve import LitAPI, LitServer
from PIL import Image

from bench.compare.baselines.siglip import Siglip, opened

BATCH = {"max_batch_size": 32, "batch_timeout": 0.01}


class API(LitAPI):
    """What both have alike."""

    def setup(self, device: str) -> None:  # noqa: ARG002 - LitServe calls it so
        self._siglip = Siglip.asked_for()

    def encode_response(self, output: list[float]) -> dict[str, Any]:
        return {"embedding": output}


class TextAPI(API):
    def decode_request(self, request: dict[str, str]) -> str:
        return request["text"]

    def predict(self, x: list[str]) -> list[list[float]]:
        return self._siglip.texts(x)


class ImageAPI(API):
    def decode_request(self, request: dict[str, str]) -> Image.Image:
        return opened(request["image"])

    def predict(self, x: list[Image.Image]) -> list[list[float]]:
        return self._siglip.images(x)


if __name__ == "__main__":
    apis = [TextAPI(api_path="/embed_text", **BATCH), ImageAPI(api_path="/embed_image", **BATCH)]
    accelerator = "cuda" if os.environ.get("DEVICE", "cpu").startswith("cuda") else "cpu"
    server = LitServer(apis, accelerator=accelerator, devices=1)
    server.run(host="127.0.0.1", port=int(sys.argv[1]), generate_client_file=False)
