"""`python -m docs.examples`: write the answers that /docs shows, as a real server gives them.

`docs/openapi/examples.json` has the requests of each route with a summary and an answer, and an
answer of each route that tells of the server. To show another request, add it with its summary and
run this. Vectors are cut to four numbers only so that a reader can see a whole answer.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any, Final
from uuid import UUID

import httpx

from bench.rig.server_process import ServerProcess
from docs.__main__ import main as write_generated
from docs.openapi.document import EXAMPLES, FORMS
from litapi.checkpoint import DEMO_NAME

RED_DOT: Final = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAUAAAAFCAYAAACNbyblAAAAHElEQVQI12P4"
    "//8/w38GIAXDIBKE0DHxgljNBAAO9TXL0Y4OHwAAAABJRU5ErkJggg=="
)
FRESH: Final = {"cache-control": "no-cache"}  # as the answer to a first request
METRIC: Final = "siglit_items_in_flight"  # the one that stands for all of them


def written() -> dict[str, Any]:
    """What the file holds now."""
    content: dict[str, Any] = json.loads(EXAMPLES.read_text())
    return content


def answered(client: httpx.Client) -> dict[str, Any]:
    """The same with the answers of this server, which has the demo checkpoint."""
    content = written()
    for path in content:
        if path not in FORMS:
            content[path] = _told(client, path)
            continue
        for example in content[path].values():
            example["response"] = _embedded(client, path, example["request"])
    return content


def _embedded(client: httpx.Client, path: str, request: Mapping[str, Any]) -> Any:
    """An image by URL is sent as it is: the server fetches none, and would answer the same."""
    sent = {"image" if name == "url" else name: value for name, value in request.items()}
    if "url" in request:
        sent["image"] = RED_DOT
    headers = {} if '"sha256' in json.dumps(request) else FRESH  # a digest is known from before
    answer = client.post(path, json=sent, headers=headers).raise_for_status().json()
    if "id" in answer:  # a new one each time
        answer["id"] = UUID(int=0).hex
    return answer


def _told(client: httpx.Client, path: str) -> Any:
    answer = client.get(path.format(model=DEMO_NAME)).raise_for_status()
    if path != "/metrics":
        return answer.json()
    return "".join(line for line in answer.text.splitlines(keepends=True) if METRIC in line)


def main() -> int:
    """Write the file, and the document that is made from it."""
    with ServerProcess() as server, httpx.Client(base_url=server.url, timeout=60) as client:
        EXAMPLES.write_text(json.dumps(answered(client), indent=2, ensure_ascii=False) + "\n")
    return write_generated()


if __name__ == "__main__":
    sys.exit(main())
