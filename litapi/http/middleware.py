"""Middlewares around the application when the settings ask for them: CORS and traces.

Each is a maintained library's ASGI middleware and is imported only when it is switched on.
"""

from __future__ import annotations

from typing import Any

from litapi.http.request import ASGIApp
from litapi.settings import Settings

PRIVATE_NETWORK = b"access-control-request-private-network"
SEEN = [
    "X-Cache", "X-Truncated", "X-Request-Id", "X-Embedding-Space", "X-Embedding-Shape",
    "X-Embedding-Dtype", "X-Embedding-Scales", "Server-Timing",
]  # fmt: skip


def wrap(app: ASGIApp, settings: Settings) -> ASGIApp:
    """`app` inside its middlewares, traces outermost."""
    if settings.cors_origins:
        app = _cors(app, settings.cors_origins, settings.cors_private_network == "on")
    if settings.otlp_endpoint:
        app = _traced(app, settings.otlp_endpoint)
    return app


def _cors(app: ASGIApp, origins: tuple[str, ...], private: bool) -> ASGIApp:
    from starlette.datastructures import Headers
    from starlette.middleware.cors import CORSMiddleware
    from starlette.responses import Response

    class Cors(CORSMiddleware):
        """Starlette's, but a page that may ask reads no 400 for the network it asks from."""

        def preflight_response(self, request_headers: Headers) -> Response:
            kept = [pair for pair in request_headers.raw if private or pair[0] != PRIVATE_NETWORK]
            return super().preflight_response(Headers(raw=kept))

    return Cors(
        app,
        allow_origins=list(origins),
        allow_methods=["GET", "POST"],
        allow_headers=["*"],
        expose_headers=SEEN,
        max_age=600,
        allow_private_network=private,
    )


def _traced(app: ASGIApp, endpoint: str) -> ASGIApp:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = TracerProvider(resource=Resource.create({"service.name": "siglit"}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint)))
    quiet: Any = ["send", "receive"]  # one span a request, not one a message
    return OpenTelemetryMiddleware(
        app, excluded_urls="livez,readyz,metrics", tracer_provider=provider, exclude_spans=quiet
    )
