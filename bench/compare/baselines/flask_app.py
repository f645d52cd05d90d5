"""The plain service: Flask, the model loaded once, one request computed after another.

CHECKPOINT=FOLDER python -m bench.compare.baselines.flask_app PORT
CHECKPOINT=FOLDER gunicorn "bench.compare.baselines.flask_app:create_app()"
"""

from __future__ import annotations

import sys
from typing import Any

from flask import Flask, request

from bench.compare.baselines.siglip import Siglip, opened

Answer = dict[str, Any]


def create_app() -> Flask:
    app = Flask(__name__)
    siglip = Siglip.asked_for()

    @app.get("/health")
    def health() -> Answer:
        return {"status": "ok"}

    @app.post("/embed_text")
    def embed_text() -> Answer:
        body = request.get_json()
        if "texts" in body:
            return {"embeddings": siglip.texts(body["texts"])}
        return {"embedding": siglip.texts([body["text"]])[0]}

    @app.post("/embed_image")
    def embed_image() -> Answer:
        body = request.get_json()
        if "images" in body:
            return {"embeddings": siglip.images([opened(image) for image in body["images"]])}
        return {"embedding": siglip.images([opened(body["image"])])[0]}

    return app


if __name__ == "__main__":
    create_app().run(host="127.0.0.1", port=int(sys.argv[1]), threaded=True)
