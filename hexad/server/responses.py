"""/v1/responses: items in, items out; a stored response can be gone on from."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import uuid
from collections.abc import AsyncGenerator
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from hexad.errors import BadRequest, HexadError, UnknownOption
from hexad.server.conversation import choice_of, tools_of
from hexad.server.dialect import EVENT_STREAM, Dialect, Route, named_event
from hexad.server.errors import error_body, naming
from hexad.server.generation import Service
from hexad.server.models import Models
from hexad.server.responses_events import Answering
from hexad.server.responses_items import messages_of, stored_item
from hexad.server.responses_store import ResponseStore, items_of
from hexad.server.responses_types import InputMessage, ItemReference, ResponseRequest
from hexad.server.structured import response_format
from hexad.server.turn import Gained, Turn, answer
from hexad.server.wire import json_response, read_body, respond
from hexad.types import StructuredOutputs

RESPONSES = Dialect(error_body, EVENT_STREAM, named_event)
"""The stream ends with an event of its own."""
DEFAULT_LISTED, MAX_LISTED = 20, 100


async def create_response(models: Models, request: Request) -> Response:
    body = await read_body(request, ResponseRequest)
    store, client = _store(request), _client(request)
    turns = store.conversation(client, body.previous_response_id, "previous_response_id")
    given = [InputMessage(role="user", content=body.input)] if isinstance(body.input, str) else body.input
    makers = store.makers(client, [item.id for item in given if isinstance(item, ItemReference)])

    def read() -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        known = {item["id"]: item for item in items_of(makers)}
        inputs = [stored_item(item, known) for item in given]
        return inputs, items_of(turns) + inputs

    inputs, items = await asyncio.to_thread(read)
    answering = Answering(body, "resp_" + uuid.uuid4().hex)

    async def events() -> AsyncGenerator[dict[str, Any], None]:
        gained: Gained | None = None
        async with models.use(body.model, request.state.caller) as service:
            turn = _turn(service, body, items, answering.id)
            opening = list(answering.begin(service, turn.params))
            try:
                async with contextlib.aclosing(answer(service, turn, request.state.caller)) as growth:
                    async for gained in growth:
                        for event in [*opening, *answering.gained(gained)]:
                            yield event
                        opening = []
            except HexadError as error:
                if gained is not None:
                    yield answering.failed(error)
                raise
        if body.store is not False:
            store.put(client, answering.response, inputs)
        yield answering.last() if body.stream else answering.response

    dialect = dataclasses.replace(RESPONSES, error=answering.error_event) if body.stream else RESPONSES
    return await respond(request, dialect, body.stream, events())


def _turn(service: Service, body: ResponseRequest, items: list[dict[str, Any]], request_id: str) -> Turn:
    shape = response_format(body.text and body.text.format)
    names = {"effort": "reasoning.effort", "max_tokens": "max_output_tokens"}
    with naming(names):
        params = service.sampling_params(
            body,
            max_tokens=body.max_output_tokens,
            logprobs=(body.top_logprobs or 0) if body.wants_logprobs else None,
        )
    return Turn(
        request_id=request_id,
        messages=lambda: messages_of(items, body.instructions),
        params=params,
        tools=tools_of([tool for tool, _ in body.functions]),
        parallel_tool_calls=body.parallel_tool_calls is not False,
        structured=StructuredOutputs(**shape) if shape else None,
        effort=body.reasoning.effort if body.reasoning else None,
        by_token=body.wants_logprobs,
        priority=body.priority,
        cache_salt=body.cache_salt,
        names=names | ({"structured_outputs": "text.format"} if shape else {}),
        **choice_of(body.tool_choice),
    )


async def get_response(models: Models, request: Request) -> Response:
    _no_query(request)
    stored = _store(request).get(_client(request), request.path_params["response_id"])
    return Response(stored.response, media_type="application/json")


async def delete_response(models: Models, request: Request) -> Response:
    response_id = request.path_params["response_id"]
    _store(request).delete(_client(request), response_id)
    return json_response({"id": response_id, "object": "response", "deleted": True})


async def cancel_response(models: Models, request: Request) -> Response:
    _store(request).get(_client(request), request.path_params["response_id"])
    raise BadRequest(
        "only a response with background true can be cancelled, and there are none here", param="background"
    )


async def list_input_items(models: Models, request: Request) -> Response:
    """The items that the model was given, the newest first unless `order` is asc."""
    _no_query(request, "limit", "order", "after")
    store, client = _store(request), _client(request)
    stored = store.get(client, request.path_params["response_id"])
    turns = store.conversation(client, stored.previous)
    items = await asyncio.to_thread(lambda: items_of(turns) + msgspec.json.decode(stored.inputs))
    limit, order, after = (request.query_params.get(name) for name in ("limit", "order", "after"))
    if order not in (None, "asc", "desc"):
        raise BadRequest(f"order is {order[:60]!r}; it must be 'asc' or 'desc'", param="order")
    if limit is not None and not (limit.isdecimal() and limit.isascii() and 1 <= int(limit[:9]) <= MAX_LISTED):
        raise BadRequest(f"limit is {limit[:60]!r}; it must be 1 to {MAX_LISTED}", param="limit")
    if order != "asc":
        items.reverse()
    if after is not None:
        place = next((i for i, item in enumerate(items) if item["id"] == after), None)
        if place is None:
            raise BadRequest(f"after is {after[:60]!r}, which is no item of this response", param="after")
        items = items[place + 1 :]
    page = items[: int(limit or DEFAULT_LISTED)]
    ends = {"first_id": page[0]["id"], "last_id": page[-1]["id"]} if page else {"first_id": "", "last_id": ""}
    return json_response({"object": "list", "data": page, "has_more": len(page) < len(items), **ends})


def _no_query(request: Request, *known: str) -> None:
    if unknown := next((name for name in request.query_params if name not in known), None):
        allowed = f"there are {', '.join(known)}" if known else "there are none here"
        raise UnknownOption(f"unknown query parameter {unknown[:60]}; {allowed}", param=unknown[:60])


def _store(request: Request) -> ResponseStore:
    store: ResponseStore = request.app.state.responses
    return store


def _client(request: Request) -> str:
    name: str = request.state.client.name
    return name


_ONE = "/v1/responses/{response_id}"
ROUTES = (
    Route("POST", "/v1/responses", create_response, RESPONSES, ResponseRequest),
    Route("GET", _ONE, get_response, RESPONSES),
    Route("DELETE", _ONE, delete_response, RESPONSES),
    Route("POST", _ONE + "/cancel", cancel_response, RESPONSES),
    Route("GET", _ONE + "/input_items", list_input_items, RESPONSES),
)
