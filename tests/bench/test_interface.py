"""The comparison of two commits' interfaces: facts are found, and a missing one is named."""

import pytest

from bench.interface import documented, exposed, facts, lost
from bench.rig.server_process import ROOT

SCHEMAS = {
    "Row": {"properties": {"embedding": {"type": "string"}, "row": {"$ref": "#/schemas/Row"}}},
    "Rows": {"properties": {"data": {"type": "array", "items": {"$ref": "#/schemas/Row"}}}},
}
ROUTE = {
    "parameters": [{"in": "path", "name": "model"}],
    "responses": {"200": {"content": {"application/json": {"schema": {"$ref": "#/schemas/Rows"}}}}},
}


def test_a_document_is_its_routes_fields_and_statuses() -> None:
    """By the names that a client sees; a schema that holds itself has an end."""
    found = set(documented({"paths": {"/a": {"get": ROUTE}}, "components": {"schemas": SCHEMAS}}))
    assert {
        "route GET /a",
        "parameter GET /a path model",
        "status GET /a 200",
        "content GET /a 200 application/json",
        "field GET /a 200 data.embedding",
        "field GET /a 200 data.row.embedding",
    } <= found


def test_a_metric_is_known_by_its_labels() -> None:
    """Whatever their values are."""
    text = '# HELP a_total b\na_total{y="1",x="2"} 3.0\nplain 1\n'
    assert list(exposed(text)) == ["metric a_total x,y", "metric plain "]


def test_what_is_missing_is_named() -> None:
    """And how many there were of each kind."""
    assert lost({"option a", "option b"}, {"option b", "route c"}) == [
        "option: 2 before, 1 now",
        "route: 0 before, 1 now",
        "missing  option a",
    ]


@pytest.mark.timeout(300)
def test_this_tree_has_facts_of_every_kind() -> None:
    """Of its code, its commands and a running server."""
    found = facts(ROOT)
    assert {
        "name cache.VectorCache", "option litapi serve --redis-url", "default port 8080",
        "variable SIGLIT_REDIS_URL", "variable REDIS_URL", "error body_too_large 413",
        "route POST /embed_text", "header POST /embed_text 200 x-cache",
        "metric siglit_requests_total route,status",
    } <= found, sorted(found)  # fmt: skip
