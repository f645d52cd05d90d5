"""A real server and hostile or unusual connections: memory is bounded, and others are served."""

import contextlib
import gzip
import shutil
import socket
import subprocess
import threading
import zlib
from collections.abc import Callable, Iterator

import httpx
import pytest

from bench.rig.server_process import ServerProcess, resident_mb
from tests.support.patience import awaited, heard
from tests.support.picture import picture
from tests.support.raw import everything

SPELT = b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n"
MB = 1 << 20


def connect(server: ServerProcess) -> socket.socket:
    """A plain connection."""
    return socket.create_connection(("127.0.0.1", server.port), timeout=60)


@pytest.mark.parametrize("path", ["/v1/embeddings", "/embed_text", "/livez", "/none", "/docs"])
def test_a_body_after_an_offered_upgrade_is_never_the_next_request(
    server: ServerProcess, path: str
) -> None:
    """It comes later and spells a request; there is one answer to it, and one to the next."""
    head = (
        f"POST {path} HTTP/1.1\r\nhost: x\r\nconnection: Upgrade\r\nupgrade: h2c\r\n"
        f"content-type: application/json\r\ncontent-length: {len(SPELT)}\r\n\r\n"
    )
    with connect(server) as connection:
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
    body = '{"input":"a red circle"}'
    url = f"{server.url}/v1/embeddings"
    command = ["curl", "--http2", "-sS", url, "-H", "content-type: application/json", "-d", body]
    said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    plain = httpx.post(url, content=body, headers={"content-type": "application/json"}, timeout=60)
    assert said == plain.text


COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "identity": bytes,
}


@pytest.mark.parametrize("coding", COMPRESS)
def test_a_compressed_body_is_answered_as_the_plain_one(client: httpx.Client, coding: str) -> None:
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
        packed = client.post(path, content=COMPRESS[coding](body), headers=headers)
        assert packed.status_code == plain.status_code == 200, packed.text
        assert packed.json()[name] == plain.json()[name]


@pytest.mark.parametrize("charset", ["utf-7", "utf-8", "unicode_escape"])
@pytest.mark.parametrize("name", ["+2AA-", "\\ud800", "caf\xe9"])
def test_a_multipart_body_with_strange_names_is_a_400(
    client: httpx.Client, charset: str, name: str
) -> None:
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


class Watch:
    """The most memory that any process of a server gained while it was watched."""

    def __init__(self, server: ServerProcess) -> None:
        self._server = server
        self._idle = {pid: resident_mb(pid) for pid in server.family()}
        self.most = 0.0

    def look(self) -> None:
        """Measure, and see that somebody else is served."""
        for pid, idle in self._idle.items():
            self.most = max(self.most, resident_mb(pid) - idle)
        assert httpx.get(f"{self._server.url}/livez", timeout=60).status_code == 200

    def now(self) -> float:
        """What the largest process holds more than when it was idle."""
        return max(resident_mb(pid) - idle for pid, idle in self._idle.items())


@pytest.fixture(scope="module")
def guarded() -> Iterator[ServerProcess]:
    """A server with keys, and small bounds so that little is needed to reach them."""
    flags = ["--redis-private", "off", "--max-body-bytes", str(8 * MB), "--max-bodies-mb", "16"]
    with ServerProcess(*flags, SIGLIT_API_KEYS="a") as running:
        text = {"text": "warm"}
        httpx.post(f"{running.url}/embed_text", json=text, headers={"x-api-key": "a"}, timeout=60)
        yield running


KEY = "x-api-key: a\r\n"


def test_compressed_bombs_are_bounded_together(guarded: ServerProcess) -> None:
    """Each becomes 8 MB of a few KB; what all of them hold has one bound."""
    watch = Watch(guarded)
    bomb = gzip.compress(b'{"text": "' + bytes(7 * MB), 9)
    headers = {"x-api-key": "a", "content-encoding": "gzip"}
    statuses: list[int] = []

    def send() -> None:
        answer = httpx.post(
            f"{guarded.url}/v1/embeddings", content=bomb, headers=headers, timeout=60
        )
        statuses.append(answer.status_code)

    threads = [threading.Thread(target=send) for _ in range(30)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        watch.look()
    assert len(statuses) == 30
    assert set(statuses) <= {400, 429}
    assert watch.most < 150
    awaited(lambda: watch.now() < 50)  # what was held is given back
