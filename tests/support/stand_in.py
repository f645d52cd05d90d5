"""A server of another make: what it answers is a function of method, path and body."""

import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Reply = tuple[int, Mapping[str, str], bytes]
Answer = Callable[[str, str, Mapping[str, str], bytes], Reply]
JSON = {"content-type": "application/json"}


@contextmanager
def stand_in(answer: Answer) -> Iterator[str]:
    """Its URL, while it runs."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            status, headers, content = answer(self.command, self.path, dict(self.headers), body)
            self.send_response(status)
            for name, value in {**headers, "content-length": str(len(content))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        do_POST = do_GET  # noqa: N815 - its own name

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its own name
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def openai_form(embed: Callable[[Sequence[str]], Any]) -> Answer:
    """Two routes of OpenAI's form and nothing else; `embed` gives a row for each input."""

    def answer(method: str, path: str, headers: Mapping[str, str], body: bytes) -> Reply:
        del method, headers
        if path == "/v1/models":
            return 200, JSON, json.dumps({"data": [{"id": "a/model"}]}).encode()
        if path != "/v1/embeddings":
            return 404, JSON, b'{"detail": "Not Found"}'
        rows = enumerate(embed(json.loads(body)["input"]))
        data = [{"index": i, "embedding": list(map(float, row))} for i, row in rows]
        return 200, JSON, json.dumps({"data": data}).encode()

    return answer
