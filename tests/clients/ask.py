"""python ask.py CLIENT URL: what an official client gets for texts and pictures, as JSON.

The input is a JSON object on standard input: `texts`, and `images` as data URIs. Run in an
environment of the clients alone; nothing of siglit is imported here. Each function is what a user
of that client would write.
"""

import base64
import io
import json
import sys
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

MODEL = "siglit-demo"
KEY = "none"  # the server asks for none, most clients do
Asked = dict[str, Any]


def openai(url: str, texts: list[str], images: list[str]) -> Asked:
    from openai import OpenAI

    client = OpenAI(base_url=f"{url}/v1", api_key=KEY)
    found = client.embeddings.create(model=MODEL, input=[*texts, *images]).data
    rows = [one.embedding for one in found]
    return {"texts": rows[: len(texts)], "images": rows[len(texts) :]}


def cohere(url: str, texts: list[str], images: list[str]) -> Asked:
    from cohere import Client, ClientV2

    client = ClientV2(base_url=url, api_key=KEY)
    kind = {"model": MODEL, "input_type": "search_document", "embedding_types": ["float"]}
    parts: Any = [{"content": [{"type": "text", "text": text}]} for text in texts]
    parts += [{"content": [{"type": "image_url", "image_url": {"url": one}}]} for one in images]
    mixed = client.embed(inputs=parts, **kind).embeddings.float_
    ranked = [
        one.rerank(model=MODEL, query=texts[0], documents=images).results
        for one in (client, Client(base_url=url, api_key=KEY))
    ]
    return {
        "texts": client.embed(texts=texts, **kind).embeddings.float_,
        "images": [client.embed(images=[one], **kind).embeddings.float_[0] for one in images],
        "mixed": mixed,
        "ranks": [[(one.index, one.relevance_score) for one in some] for some in ranked],
    }


def voyageai(url: str, texts: list[str], images: list[str]) -> Asked:
    from PIL import Image
    from voyageai import Client

    client = Client(base_url=f"{url}/v1", api_key=KEY)
    parts: Any = [{"content": [{"type": "image_base64", "image_base64": one}]} for one in images]
    files = [io.BytesIO(base64.b64decode(one.partition(",")[2])) for one in images]
    drawn = client.multimodal_embed([[Image.open(file)] for file in files], MODEL).embeddings
    together = client.multimodal_embed([[text] for text in texts], MODEL, input_type="query")
    assert together.embeddings == client.embed(texts, MODEL, input_type="query").embeddings
    ranked = client.rerank(texts[0], images, MODEL).results
    return {
        "ranks": [[(one.index, one.relevance_score) for one in ranked]],
        "texts": together.embeddings,
        "images": client.multimodal_embed(parts, MODEL).embeddings,
        "redrawn": drawn,  # sent as another file of the same pixels
    }


def huggingface_hub(url: str, texts: list[str], images: list[str]) -> Asked:
    from huggingface_hub import InferenceClient

    client = InferenceClient()
    rows = client.feature_extraction([*texts, *images], normalize=True, model=f"{url}/embed")
    (alone,) = client.feature_extraction(texts[0], truncate=True, model=f"{url}/embed").tolist()
    assert alone == rows[0].tolist()
    return {
        "texts": rows[: len(texts)].tolist(),
        "images": rows[len(texts) :].tolist(),
        "likeness": client.sentence_similarity(texts[0], images, model=f"{url}/similarity"),
    }


def litellm(url: str, texts: list[str], images: list[str]) -> Asked:
    import litellm

    def embedded(model: str, base: str, given: list[str]) -> list[Any]:
        answer = litellm.embedding(model=model, api_base=base, api_key=KEY, input=given)
        return [one["embedding"] for one in answer.data]

    def ranked(model: str, base: str) -> list[Any]:
        answer = litellm.rerank(
            model=model, api_base=base, api_key=KEY, query=texts[0], documents=images
        )
        return [(one["index"], one["relevance_score"]) for one in answer.results]

    for maker in ("hosted_vllm", "jina_ai"):
        assert embedded(f"{maker}/{MODEL}", f"{url}/v1", texts) == embedded(
            f"openai/{MODEL}", f"{url}/v1", texts
        )
    return {
        "texts": embedded(f"openai/{MODEL}", f"{url}/v1", texts),
        "images": embedded(f"openai/{MODEL}", f"{url}/v1", images),
        "ranks": [
            ranked(f"hosted_vllm/{MODEL}", url),
            ranked(f"cohere/{MODEL}", url),
            ranked(f"jina_ai/{MODEL}", f"{url}/v1/rerank"),
            ranked(f"infinity/{MODEL}", url),
        ],
    }


def langchain_openai(url: str, texts: list[str], images: list[str]) -> Asked:
    from langchain_openai import OpenAIEmbeddings
    from pydantic import SecretStr

    client = OpenAIEmbeddings(  # type: ignore[call-arg]  # mypy's plugin knows the fields, not their names here
        base_url=f"{url}/v1",
        api_key=SecretStr(KEY),
        model=MODEL,
        check_embedding_ctx_length=False,
    )
    return {"texts": client.embed_documents(texts), "images": client.embed_documents(images)}


def llama_index(url: str, texts: list[str], images: list[str]) -> Asked:
    from llama_index.embeddings.openai import OpenAIEmbedding

    client = OpenAIEmbedding(model_name=MODEL, api_base=f"{url}/v1", api_key=KEY)
    return {
        "texts": client.get_text_embedding_batch(texts),
        "images": client.get_text_embedding_batch(images),
    }


CLIENTS: dict[str, Callable[[str, list[str], list[str]], Asked]] = {
    "openai": openai, "cohere": cohere, "voyageai": voyageai, "huggingface_hub": huggingface_hub,
    "litellm": litellm, "langchain-openai": langchain_openai,
    "llama-index-embeddings-openai": llama_index,
}  # fmt: skip


if __name__ == "__main__":
    name, url = sys.argv[1:]
    sent = json.load(sys.stdin)
    answered = CLIENTS[name](url, sent["texts"], sent["images"])
    print(json.dumps({**answered, "version": version(name)}))
