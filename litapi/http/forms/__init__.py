"""The bodies of the interface: what a request may hold, what an answer holds.

Requests forbid unknown fields, so a misspelt option is refused by its name instead of ignored.
These models are also the OpenAPI document behind /docs. Answers with vectors are written by
`answer.py` without going through a model; the models here describe them.
"""
