"""LangChain: pictures in a vector store, found by what is asked for in words.

    python -m examples.langchain_search [http://localhost:8080]

`check_embedding_ctx_length=False` makes OpenAIEmbeddings send texts. Left out, it would cut them
with the tokenizer of OpenAI's models and send token ids, which mean nothing to SigLIP2; the server
refuses those with a 400 that says so.
"""

from __future__ import annotations

import sys

from langchain_core.vectorstores import InMemoryVectorStore
from langchain_openai import OpenAIEmbeddings
from pydantic import SecretStr

from examples.openai_client import data_uri
from litapi.demo.drawing import COLOURS, Scene


def main() -> None:
    url = sys.argv[1] if len(sys.argv) > 1 else "http://localhost:8080"
    embeddings = OpenAIEmbeddings(  # type: ignore[call-arg]  # mypy's plugin knows the fields, not their names here
        base_url=f"{url}/v1",
        api_key=SecretStr("none"),
        model="siglit-demo",
        check_embedding_ctx_length=False,
    )
    store = InMemoryVectorStore(embeddings)
    scenes = [Scene(colour, shape) for colour in COLOURS for shape in ("circle", "star")]
    names = [{"name": f"{scene.colour} {scene.shape}"} for scene in scenes]
    # A text that begins with data:image/ is embedded as the image it holds.
    store.add_texts([data_uri(scene) for scene in scenes], metadatas=names)
    for question in ("a green star", "a purple circle", "a brown star"):
        ((found, score),) = store.similarity_search_with_score(question, k=1)
        print(f"{question} → {found.metadata['name']} ({score:.3f})")


if __name__ == "__main__":
    main()
