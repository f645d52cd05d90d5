"""The pages behind /docs and the OpenAPI document, which `python -m docs` makes from the forms.

The assets of the pages come from a package, not from a content network: they work on a closed
network. The routes that the document describes are answered in `app.py`.
"""

from __future__ import annotations

from pathlib import Path

import orjson
from fastapi import FastAPI, Request
from fastapi.responses import Response
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException

from litapi.errors import MethodNotAllowed, RouteUnknown, ServiceError
from litapi.http.answer import Answer

DOCUMENT = Path(__file__).with_name("openapi.json")
PAGE = {"defaultModelsExpandDepth": 0, "displayRequestDuration": True, "tryItOutEnabled": True}


def describe() -> FastAPI:
    app = FastAPIOffline(
        title="siglit",
        swagger_ui_parameters=PAGE,
        redirect_slashes=False,  # the redirect would go to whatever host the client named
        exception_handlers={HTTPException: _refused},
    )
    # FastAPI's way to extend it. Read when asked for: kept, it would be 4 MB of each process.
    app.openapi = lambda: orjson.loads(DOCUMENT.read_bytes())  # type: ignore[method-assign]
    return app


async def _refused(request: Request, error: Exception) -> Response:
    """What the pages do not have, in the form that every route shares."""
    del request
    status, given = getattr(error, "status_code", 500), getattr(error, "headers", None) or {}
    refusal: ServiceError = RouteUnknown() if status == 404 else ServiceError()
    if status == 405:
        refusal = MethodNotAllowed({*given.get("Allow", "GET").split(", "), "HEAD"})
    answer = Answer.error(refusal)
    headers = {name.decode(): value.decode() for name, value in answer.headers}
    return Response(answer.body, answer.status, headers)
