"""Whether the server can embed, as `/readyz` tells it.

A tower is well while at least one of its workers is loaded and it answered lately: either real
work, or a probe that went the whole way through queue, decoder and model. Probes are rare and
small, and stop while there is real work, so an idle server costs next to nothing. A tower that is
merely busy stays well; one whose work all grows older than the deadline does not.
"""

from __future__ import annotations

import asyncio
import logging
import time

from litapi.errors import ItemError, NotReady, ServiceError
from litapi.messages import KINDS, Job, Kind
from litapi.settings import Settings
from litapi.transport.dispatcher import Dispatcher
from litapi.transport.probe import probe

log = logging.getLogger("siglit.health")


class Health:
    def __init__(
        self, settings: Settings, dispatcher: Dispatcher, served: dict[Kind, float]
    ) -> None:
        self._interval = settings.probe_interval
        self._timeout = settings.timeout
        self._probes = {kind: probe(kind, settings.image_formats) for kind in KINDS}
        self._dispatcher = dispatcher
        self._served = served  # when each tower last answered, real work or a probe

    def check(self) -> None:
        """Raises `NotReady` with a sentence that names the tower."""
        now = time.monotonic()
        for kind in KINDS:
            if self._dispatcher.live.get(kind, 1) < 1:
                raise NotReady(f"No {kind} worker is loaded.")
            if now - self._served.get(kind, 0.0) > self._interval + self._timeout:
                raise NotReady(f"The {kind} tower has not answered lately.")

    async def first(self) -> None:
        """Probe both towers once, before the first request is let in."""
        await asyncio.gather(*(self._probe(kind) for kind in KINDS))

    async def run(self) -> None:
        """Probe each tower whenever it has been silent for the interval; never returns."""
        while True:
            await asyncio.sleep(min(1.0, self._interval / 4))
            now = time.monotonic()
            silent = [k for k in KINDS if now - self._served.get(k, 0.0) > self._interval]
            await asyncio.gather(*(self._probe(kind) for kind in silent))

    async def _probe(self, kind: Kind) -> None:
        asked = self._probes[kind]
        job = Job(asked.items, asked.max_num_patches, time.monotonic() + self._timeout)
        try:
            reply = await self._dispatcher.submit(kind, job)
        except ServiceError as error:
            log.warning("a probe of the %s tower failed: %s", kind, error.code)
            return
        if all(map(ItemError.own, reply.errors.values())):  # what the limits refuse is answered too
            self._served[kind] = time.monotonic()
        else:
            log.warning("a probe of the %s tower failed: %s", kind, reply.errors[0])
