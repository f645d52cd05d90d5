"""The official OpenAI client: texts and pictures in one request, and a smaller type.

python -m examples.openai_client [http://localhost:8080]
"""

from __future__ import annotations

import base64
import io
import sys

import numpy as np
from openai import OpenAI

from litapi.demo.drawing import Scene, draw


def data_uri(scene: Scene) -> str:
    """A drawn picture as the client sends it; a file's bytes would do as well."""
    buffer = io.BytesIO()
    draw(scene, seed=1).save(buffer, "PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def main() -> None:
    url = sys.argv[1] if len(sys.argv) > 1 else "http://localhost:8080"
    client = OpenAI(base_url=f"{url}/v1", api_key="none")  # a key, where the server asks for one
    model = client.models.list().data[0].id

    pictures = [data_uri(Scene("red", "circle")), data_uri(Scene("blue", "star"))]
    answer = client.embeddings.create(model=model, input=["a red circle", *pictures])
    text, *images = np.array([row.embedding for row in answer.data])
    print(f"{model}: {len(text)} numbers, {answer.usage.total_tokens} tokens and patches")
    for name, image in zip(["red circle", "blue star"], images, strict=True):
        print(f"cosine of 'a red circle' with the picture of a {name}: {text @ image:.3f}")

    # encoding_format is needed here: by default the client reads every answer as float32.
    small = client.embeddings.create(
        model=model,
        input="a red circle",
        encoding_format="float",
        extra_body={"embedding_type": "int8"},
    ).data[0]
    near = np.array(small.embedding) * (small.model_extra or {})["scale"]
    print(f"int8 × scale is off by {abs(near - text).max():.4f} at most")


if __name__ == "__main__":
    main()
