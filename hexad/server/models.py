"""The models that a server has, by the names that clients use."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence

from hexad.errors import NotFound
from hexad.server.generation import Service


class Models:
    """Use `async with models.use(name) as service`: for as long as it is open, the model stays loaded."""

    def __init__(self, services: Sequence[Service]) -> None:
        self.services = {service.model_name: service for service in services}

    @property
    def healthy(self) -> bool:
        return all(service.engine.healthy for service in self.services.values())

    def find(self, name: str | None) -> Service:
        """No name means the first model. Raises NotFound."""
        service = next(iter(self.services.values())) if name is None else self.services.get(name)
        if service is None:
            known = ", ".join(map(repr, self.services))
            raise NotFound(
                f"the model {name!r} does not exist; this server has {known}", param="model", code="model_not_found"
            )
        return service

    @contextlib.asynccontextmanager
    async def use(self, name: str | None) -> AsyncIterator[Service]:
        """Raises NotFound."""
        yield self.find(name)
