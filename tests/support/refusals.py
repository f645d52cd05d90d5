"""The error table, as the classes that are answered."""

from litapi import errors
from litapi.errors import ItemError, RequestError, ServiceError

# The two that only sort the others are left out.
REFUSALS: list[type[ServiceError]] = [
    one
    for one in vars(errors).values()
    if isinstance(one, type)
    and issubclass(one, ServiceError)
    and one not in (RequestError, ItemError)
]
