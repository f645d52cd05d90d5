"""The public interface of two commits, compared: is anything lost?

    python -m bench.interface v1.0              # that commit against the working tree
    python -m bench.interface v1.0 main

Each side is checked out, imported and started on its own checkpoint. Compared are the names that
packages offer, options with their defaults, environment variables, error codes, the OpenAPI
document (routes, parameters, fields, statuses), the headers of real answers, and metrics with their
labels. A fact is a line; what the first has and the second lacks is printed. Exit code 0: nothing.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import orjson
from prometheus_client.parser import text_string_to_metric_families

from bench.load.photo import noise
from bench.rig.child import serving
from bench.rig.command import described
from bench.rig.server_process import ROOT

COMMANDS = (("litapi", "serve"), ("litapi", "check"), ("litapi", "warm"), ("deploy.bulk",))
PUBLISHED = 4  # seconds within which every metric is there: the main process tells every two
ASKED: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("POST", "/embed_text", {"json": {"texts": ["a", "b"]}}),
    ("POST", "/embed_text", {"json": {}}),
    ("POST", "/embed_image", {"content": noise(1), "headers": {"content-type": "image/png"}}),
    ("POST", "/v1/embeddings", {"json": {"input": "a"}, "headers": {"accept": "*/*"}}),
    ("GET", "/info", {}),
    ("GET", "/nowhere", {}),
)
IMPORTED = """
import importlib, json
from litapi import errors
from litapi.settings import Settings

facts = set()
for package in ("litapi", "cache"):
    offered = getattr(importlib.import_module(package), "__all__", ())
    facts |= {f"name {package}.{name}" for name in offered}

class Environment(dict):
    def get(self, name, default=None):
        facts.add(f"variable {name}")
        return default

Settings.read({}, Environment())
for name, field in Settings.model_fields.items():
    facts.add(f"variable SIGLIT_{name.upper()}")
    facts.add(f"default {name} {field.default!r}")
for kind in vars(errors).values():
    if isinstance(kind, type) and hasattr(kind, "code"):
        facts.add(f"error {kind.code} {getattr(kind, 'status', '')}")
print(json.dumps(sorted(facts)))
"""


@contextmanager
def tree(commit: str | None) -> Iterator[Path]:
    if commit is None:
        yield ROOT
        return
    git = ["git", "-C", str(ROOT), "worktree"]
    with tempfile.TemporaryDirectory() as home:
        folder = Path(home, "tree")
        added = [*git, "add", "--quiet", "--detach", str(folder), commit]
        subprocess.run(added, check=True, stdout=subprocess.DEVNULL)
        try:
            yield folder
        finally:
            subprocess.run([*git, "remove", "--force", str(folder)], check=True)


def facts(folder: Path) -> set[str]:
    """All that a tree offers, a line each."""
    found = set(orjson.loads(_said(folder, "-c", IMPORTED)))
    for command in COMMANDS:
        flags = re.findall(r"--[a-z][a-z-]+", _said(folder, "-m", *command, "--help"))
        found |= {f"option {' '.join(command)} {flag}" for flag in flags}
    serve = [sys.executable, "-m", "litapi", "serve", "--host", "127.0.0.1", "--port"]
    with (
        serving(lambda port: [*serve, str(port)], "/readyz", folder=folder) as (url, _),
        httpx.Client(base_url=url) as client,
    ):
        for method, path, body in ASKED:
            answer = client.request(method, path, timeout=60, **body)
            found |= {f"header {method} {path} {answer.status_code} {h}" for h in answer.headers}
        found |= set(documented(client.get("/openapi.json").json()))
        for _ in range(PUBLISHED):
            found |= set(exposed(client.get("/metrics").text))
            time.sleep(1)
    return found


def _said(folder: Path, *arguments: str) -> str:
    command = [sys.executable, *arguments]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("SIGLIT_")}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{folder.name}: {arguments[:3]}: {done.stderr.strip()[-300:]}")
    return done.stdout


def documented(document: Mapping[str, Any]) -> Iterator[str]:
    """Routes, parameters, statuses and fields of an OpenAPI document; schemas go by no name."""
    schemas = document.get("components", {}).get("schemas", {})
    for path, methods in document["paths"].items():
        for method, route in methods.items():
            name = f"{method.upper()} {path}"
            yield f"route {name}"
            for one in route.get("parameters", ()):
                yield f"parameter {name} {one['in']} {one['name']}"
            bodies = {"": route.get("requestBody", {}), **route.get("responses", {})}
            for status, body in bodies.items():
                yield f"status {name} {status}"
                for kind, content in body.get("content", {}).items():
                    yield f"content {name} {status} {kind}"
                    for field in fields(content.get("schema", {}), schemas):
                        yield f"field {name} {status} {field}"


def fields(schema: Any, schemas: Mapping[str, Any], above: tuple[str, ...] = ()) -> Iterator[str]:
    """The names of all properties, with those above them: `data.embedding`."""
    if isinstance(schema, list):
        for one in schema:
            yield from fields(one, schemas, above)
    if not isinstance(schema, dict):
        return
    if "$ref" in schema and len(above) < 8:  # a schema may hold itself
        yield from fields(schemas[schema["$ref"].rpartition("/")[2]], schemas, above)
    for name, one in schema.get("properties", {}).items():
        yield ".".join((*above, name))
        yield from fields(one, schemas, (*above, name))
    for name in ("items", "anyOf", "oneOf", "allOf", "additionalProperties"):
        yield from fields(schema.get(name), schemas, above)


def exposed(metrics: str) -> Iterator[str]:
    for family in text_string_to_metric_families(metrics):
        for sample in family.samples:
            yield f"metric {sample.name} {','.join(sorted(sample.labels))}"


def lost(before: set[str], after: set[str]) -> list[str]:
    """The lines to print: how much there is of each kind, and what is missing."""
    kinds = {fact.split(" ", 1)[0] for fact in before | after}
    old, new = (Counter(fact.split(" ", 1)[0] for fact in side) for side in (before, after))
    counts = [f"{kind}: {old[kind]} before, {new[kind]} now" for kind in sorted(kinds)]
    return [*counts, *(f"missing  {fact}" for fact in sorted(before - after))]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = described("bench.interface", __doc__)
    parser.add_argument("before", help="a commit")
    parser.add_argument("after", nargs="?", help="another; default: the working tree")
    options = parser.parse_args(arguments)
    with tree(options.before) as one, tree(options.after) as other:
        before, after = facts(one), facts(other)
    print(*lost(before, after), sep="\n")
    return 1 if before - after else 0


if __name__ == "__main__":
    sys.exit(main())
