"""A real server and hostile or unusual connections: memory is bounded, and others are served."""

import contextlib
import gzip
import shutil
import socket
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from bench.rig.server_process import ServerProcess, resident_mb
from tests.support.command import output_of
from tests.support.patience import awaited, heard
from tests.support.picture import picture
from tests.support.raw import everything

SPELT = b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n"
MB = 1 << 20


@pytest.mark.parametrize("path", ["/v1/embeddings", "/embed_text", "/livez", "/none", "/docs"])
def test_a_body_after_an_offered_upgrade_is_no_request(server: ServerProcess, path: str) -> None:
    """It comes later and spells a request; there is one answer to it, and one to the next."""
    head = (
        f"POST {path} HTTP/1.1\r\nhost: x\r\nconnection: Upgrade\r\nupgrade: h2c\r\n"
        f"content-type: application/json\r\ncontent-length: {len(SPELT)}\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection:
        connection.sendall(head.encode())
        heard(connection)
        with contextlib.suppress(OSError):
            connection.sendall(SPELT)
            connection.sendall(b"GET /none HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        said = everything(connection)
    assert b"HTTP/1.1 4" in said[:12]
    assert b'{"status":"alive"}' not in said


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_curl_with_http2_embeds(server: ServerProcess) -> None:
    """The command of the report, word for word."""
    url, json = f"{server.url}/v1/embeddings", "content-type: application/json"
    body = '{"input":"a red circle"}'
    said = output_of("curl", "--http2", "-sS", url, "-H", json, "-d", body)
    plain = httpx.post(url, content=body, headers={"content-type": "application/json"}, timeout=60)
    assert said == plain.text


@pytest.mark.parametrize(
    ("coding", "compress"),
    [("gzip", gzip.compress), ("deflate", zlib.compress), ("identity", bytes)],
)
def test_a_compressed_body_is_answered_as_the_plain_one(
    client: httpx.Client, coding: str, compress: Callable[[bytes], bytes]
) -> None:
    """JSON, a raw image and a multipart body."""
    image = picture(1)
    form = httpx.Request("POST", "http://x", files={"images": ("a.png", image, "image/png")})
    bodies = [
        ("/v1/embeddings", b'{"input": ["a red circle"]}', "application/json", "data"),
        ("/embed_image", image, "image/png", "embedding"),
        ("/embed_image", form.read(), form.headers["content-type"], "embedding"),
    ]
    for path, body, kind, name in bodies:
        plain = client.post(path, content=body, headers={"content-type": kind})
        headers = {"content-type": kind, "content-encoding": coding}
        packed = client.post(path, content=compress(body), headers=headers)
        assert packed.status_code == plain.status_code == 200, packed.text
        assert packed.json()[name] == plain.json()[name]


@pytest.mark.parametrize("charset", ["utf-7", "utf-8", "unicode_escape"])
@pytest.mark.parametrize("name", ["+2AA-", "\\ud800", "caf\xe9"])
def test_a_form_with_strange_names_is_a_400(client: httpx.Client, charset: str, name: str) -> None:
    """Never a 500, whatever the charset makes of the name."""
    body = (
        f'--b\r\ncontent-disposition: form-data; name="{name}"\r\n\r\n1\r\n'
        '--b\r\ncontent-disposition: form-data; name="images"; filename="a"\r\n\r\nabc\r\n--b--\r\n'
    )
    headers = {"content-type": f"multipart/form-data; boundary=b; charset={charset}"}
    answer = client.post("/embed_image", content=body.encode("latin-1"), headers=headers)
    assert answer.status_code == 400
    known = "invalid_request" if charset == "utf-8" else "invalid_multipart"
    assert answer.json()["error"]["code"] == known


@pytest.fixture(scope="module")
def guarded() -> Iterator[ServerProcess]:
    """A server with keys, and small bounds so that little is needed to reach them."""
    flags = ["--redis-private", "off", "--max-body-bytes", str(8 * MB), "--max-bodies-mb", "16"]
    with ServerProcess(*flags, SIGLIT_API_KEYS="a") as running:
        text = {"text": "warm"}
        httpx.post(f"{running.url}/embed_text", json=text, headers={"x-api-key": "a"}, timeout=60)
        yield running


def test_compressed_bombs_are_bounded_together(guarded: ServerProcess) -> None:
    """Each becomes 8 MB of a few KB; what all of them hold has one bound, others are served, and
    what was held is given back."""
    bomb = gzip.compress(b'{"text": "' + bytes(7 * MB), 9)
    headers = {"x-api-key": "a", "content-encoding": "gzip"}
    idle = {pid: resident_mb(pid) for pid in guarded.family()}

    def gained() -> float:
        return max(resident_mb(pid) - before for pid, before in idle.items())

    def send(_: int) -> int:
        url = f"{guarded.url}/v1/embeddings"
        return httpx.post(url, content=bomb, headers=headers, timeout=60).status_code

    with ThreadPoolExecutor(30) as pool:
        sent, most = [pool.submit(send, n) for n in range(30)], 0.0
        while not all(one.done() for one in sent):
            most = max(most, gained())
            assert httpx.get(f"{guarded.url}/livez", timeout=60).status_code == 200
    assert {one.result() for one in sent} <= {400, 429}
    assert most < 150
    awaited(lambda: gained() < 50)
