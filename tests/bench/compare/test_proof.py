"""The proof that stands before every timing: it finds what is wrong and passes what is right."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import orjson
import pytest

from bench.compare.baselines.system import Served
from bench.compare.proof import NEAR, TEXTS, NoVectors, Proof
from bench.reference import Reference
from bench.rig.random_checkpoint import DEMO

Answer = Callable[[str], list[float]]


@pytest.fixture(scope="module")
def proof() -> Proof:
    """Of the demo checkpoint."""
    return Proof(DEMO)


@pytest.fixture(scope="module")
def reference() -> Reference:
    """What the answers are made of."""
    return Reference(DEMO)


@contextmanager
def answering(answer: Answer, status: int = 200) -> Iterator[Served]:
    """A server of texts that answers with these vectors."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            text = orjson.loads(self.rfile.read(int(self.headers["content-length"])))["text"]
            body = orjson.dumps({"embedding": answer(text)})
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_request(self, *_: object) -> None:
            """No word."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield Served(f"http://127.0.0.1:{server.server_port}", ())
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


MISTAKES = ("not padded to 64", "padded on the left", "not lower-cased", "cut at 20 tokens")


@pytest.mark.parametrize("mistake", [None, *MISTAKES])
def test_a_known_mistake_is_found_and_right_vectors_pass(
    proof: Proof, reference: Reference, mistake: str | None
) -> None:
    """As transformers gives them; each mistake by some text of the proof."""
    made = {t: reference.mistakes(t)[mistake] if mistake else reference.text(t) for t in TEXTS}
    with answering(lambda text: made[text].tolist()) as served:
        found = proof.fault(served, "text")
    assert found is None if mistake is None else "text asked alone: cosine" in str(found)


def test_a_mistake_that_only_company_brings_is_found(proof: Proof, reference: Reference) -> None:
    """Right alone, and wrong once others are under way: as padding to the longest would be."""
    asked: list[str] = []

    def answer(text: str) -> list[float]:
        asked.append(text)
        wrong = len(asked) > len(TEXTS)
        made = reference.mistakes(text)["not padded to 64"] if wrong else reference.text(text)
        return [float(value) for value in made]

    with answering(answer) as served:
        assert "text asked together: cosine" in str(proof.fault(served, "text"))


def test_fewer_bits_are_judged_by_what_they_can_keep(proof: Proof, reference: Reference) -> None:
    """A vector that is off by rounding passes for int8 and not for float32."""
    exact = {text: reference.text(text) for text in TEXTS}
    noise = np.random.default_rng(1).normal(size=96) * 0.006
    rough = {text: (vector + noise).tolist() for text, vector in exact.items()}
    with answering(rough.__getitem__) as served:
        assert "cosine 0.99" in str(proof.fault(served, "text"))
        assert proof.fault(served, "text", NEAR) is None


def test_errors_and_other_dimensions_are_named(proof: Proof) -> None:
    """A system without vectors is told from one with wrong ones: there is nothing to time."""
    with answering(lambda _: [1.0, 0.0]) as served:
        assert proof.fault(served, "text") == "text: vectors of 2 numbers, not 96"
    with pytest.raises(NoVectors, match="refused"):
        proof.fault(served, "text")
    with (
        answering(lambda _: [1.0, 0.0], status=500) as served,
        pytest.raises(NoVectors, match="no vectors of text: status 500"),
    ):
        proof.fault(served, "text")
