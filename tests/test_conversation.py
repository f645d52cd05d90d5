"""The document behind /docs, held against the running server by requests nobody would write.

Schemathesis makes requests from the document, good ones and spoilt ones. No answer may be a 5xx,
each must be one that the document describes (its status, its content type, its body), and what
the document forbids must be refused.
"""

from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.schemas import BaseSchema
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
)

from bench.rig.server_process import ServerProcess
from litapi.http.openapi import describe

EXAMPLES = 60  # requests to each operation in each mode
CHECKS = [
    *(not_a_server_error, status_code_conformance, content_type_conformance),
    *(negative_data_rejection, response_schema_conformance),
]
OPERATIONS = [
    (method, path) for path, methods in describe().openapi()["paths"].items() for method in methods
]
GOOD, SPOILT = GenerationMode.POSITIVE, GenerationMode.NEGATIVE
# A route that takes nothing cannot be asked wrongly.
TALKS = [
    pytest.param(method, path, mode, id=f"{method} {path} {mode.value}")
    for method, path in OPERATIONS
    for mode in (GOOD, SPOILT)
    if mode is GOOD or method == "post"
]


@pytest.fixture(scope="module")
def schema(server: ServerProcess) -> BaseSchema:
    return schemathesis.openapi.from_url(f"{server.url}/openapi.json")


def test_the_served_document_is_the_described_one(server: ServerProcess) -> None:
    """What is tested below is what a client reads."""
    served: dict[str, Any] = httpx.get(f"{server.url}/openapi.json", timeout=60).json()
    assert served == describe().openapi()


@pytest.mark.parametrize(("method", "path", "mode"), TALKS)
def test_every_answer_is_one_that_the_document_describes(
    schema: BaseSchema, method: str, path: str, mode: GenerationMode
) -> None:
    """Whatever is asked, the server keeps to its own word."""
    operation = schema[path][method.upper()]

    @settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck))
    @given(case=operation.as_strategy(generation_mode=mode))
    def converse(case: Case[Any]) -> None:
        case.call_and_validate(checks=CHECKS)

    converse()
