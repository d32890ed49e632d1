"""Responses that clients may come back to, in memory and within a bound of bytes.

This module knows ids, clients and bytes of JSON; it knows no endpoint.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from hexad.errors import NotFound

MAX_BYTES = 64 * 2**20


@dataclass(frozen=True, slots=True)
class Stored:
    """JSON: a response, the items of its own input, and the response that it went on from."""

    response: bytes
    inputs: bytes
    previous: str | None

    @property
    def size(self) -> int:
        return len(self.response) + len(self.inputs)


class ResponseStore:
    """Over the bound, whoever stores the most loses what was used least recently: nobody can crowd out another."""

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        self._clients: dict[str, OrderedDict[str, Stored]] = {}
        self._sizes: dict[str, int] = {}

    def put(self, client: str, response: dict[str, Any], inputs: Sequence[dict[str, Any]]) -> None:
        encode = msgspec.json.encode
        stored = Stored(encode(response), encode(inputs), response["previous_response_id"])
        self._clients.setdefault(client, OrderedDict())[response["id"]] = stored
        self._sizes[client] = self._sizes.get(client, 0) + stored.size
        while sum(self._sizes.values()) > self._max_bytes:
            largest = max(self._sizes, key=self._sizes.__getitem__)
            self.delete(largest, next(iter(self._clients[largest])))

    def get(self, client: str, response_id: str, param: str | None = None) -> Stored:
        """Raises NotFound for one that is not there, or no longer, or another client's."""
        mine = self._clients.get(client, OrderedDict())
        if response_id not in mine:
            raise NotFound(
                f"the response {response_id!r} is not stored: it never was, was deleted, or was dropped for newer "
                "ones; send the conversation as input instead",
                param=param,
                code="response_not_found",
            )
        mine.move_to_end(response_id)
        return mine[response_id]

    def makers(self, client: str, item_ids: Iterable[str]) -> list[Stored]:
        """The responses that made these items, as far as they are stored: an item's id holds its response's."""
        names = {"resp_" + item_id.partition("_")[2].partition("_")[0] for item_id in item_ids}
        return [self.get(client, name) for name in names & self._clients.get(client, {}).keys()]

    def delete(self, client: str, response_id: str) -> None:
        """Raises NotFound."""
        size = self.get(client, response_id).size
        self._sizes[client] -= size
        del self._clients[client][response_id]
        if not self._clients[client]:
            del self._clients[client], self._sizes[client]

    def conversation(self, client: str, response_id: str | None, param: str | None = None) -> list[Stored]:
        """A response and those that it went on from, the oldest first. Raises NotFound."""
        turns: list[Stored] = []
        while response_id is not None:
            turns.append(self.get(client, response_id, param))
            response_id = turns[-1].previous
        return turns[::-1]


def items_of(turns: Iterable[Stored]) -> list[dict[str, Any]]:
    """All items, with the responses' output. Takes a while for a long conversation."""
    decode = msgspec.json.decode
    return [item for turn in turns for item in decode(turn.inputs) + decode(turn.response)["output"]]
