"""The clients in examples/, run as a reader runs them, against a real server."""

import shutil
import sys

import openai
import pytest
from langchain_openai import OpenAIEmbeddings
from pydantic import SecretStr

from bench.rig.server_process import ROOT, ServerProcess
from tests.support.command import output_of

SCRIPTS = sorted(path.stem for path in (ROOT / "examples").glob("[!_]*.py"))


def run(name: str, *arguments: str) -> list[str]:
    return output_of(sys.executable, "-m", f"examples.{name}", *arguments).splitlines()


def test_the_openai_client_sees_which_picture_fits(server: ServerProcess) -> None:
    """The right picture is nearer to the text, and int8 is near to float32."""
    head, right, wrong, small = run("openai_client", server.url)
    assert head.startswith("siglit-demo: 96 numbers")
    assert float(right.rpartition(" ")[2]) > float(wrong.rpartition(" ")[2])
    assert float(small.split()[-3]) < 0.005


def test_langchain_finds_pictures_by_words(server: ServerProcess) -> None:
    """Each question finds the picture it names."""
    lines = run("langchain_search", server.url)
    assert len(lines) == 3
    for line in lines:
        question, _, found = line.partition(" → ")
        assert question.split()[1:] == found.split()[:2]


def test_the_vector_store_finds_pictures_by_caption(server: ServerProcess) -> None:
    """Also where only the bits of the vectors are searched for candidates."""
    head, *lines = run("vector_store", server.url, "100")
    assert head == "100 pictures: 38400 bytes as float32, 1200 as bits"
    assert len(lines) == 9
    captions = [line.partition(":")[2].strip() for line in lines]  # asked, found, found by bits
    assert captions[::3] == captions[1::3] == captions[2::3]


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl_gets_an_answer_from_every_route(server: ServerProcess) -> None:
    """Each call succeeds, or the script would have ended with its error."""
    lines = output_of("bash", "examples/curl.sh", server.url).splitlines()
    answers = [line for line in lines if line.startswith("{")]
    assert len(answers) == 9
    assert not any('"error"' in line for line in answers)
    assert lines[-1] == str(96 * 4)


def test_every_example_says_how_it_is_run() -> None:
    """The command in its docstring is its own."""
    assert SCRIPTS == ["langchain_search", "openai_client", "vector_store"]
    for name in SCRIPTS:
        text = (ROOT / "examples" / f"{name}.py").read_text()
        assert f"python -m examples.{name} [http://localhost:8080]" in text


def test_langchain_embeds_a_text_as_everybody_else(server: ServerProcess) -> None:
    """The vectors are those of the plain client, number by number."""
    url = f"{server.url}/v1"
    embeddings = OpenAIEmbeddings(  # type: ignore[call-arg]  # mypy's plugin knows the fields, not their names here
        base_url=url,
        api_key=SecretStr("none"),
        model="siglit-demo",
        check_embedding_ctx_length=False,
    )
    client = openai.OpenAI(base_url=url, api_key="none")
    plain = client.embeddings.create(model="siglit-demo", input="A red circle")
    assert embeddings.embed_query("A red circle") == plain.data[0].embedding
