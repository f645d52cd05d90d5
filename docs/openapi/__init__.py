"""What the OpenAPI document is made of. `python -m docs` writes it to litapi/http/openapi.json."""
