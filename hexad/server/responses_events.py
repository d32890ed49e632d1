"""One response as it grows: the events that tell it, and the object that it becomes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from hexad.errors import HexadError
from hexad.server.generation import Service, now
from hexad.server.pieces import logprobs_of, usage
from hexad.server.responses_items import new_id, text_part
from hexad.server.responses_types import ENCRYPTED, OPEN, ResponseRequest, TextOptions
from hexad.server.turn import Gained, call_id
from hexad.text.reply import CallArguments, CallStart, Event, Reasoning, Text
from hexad.types import SamplingParams

_TEXT_EVENTS = {"message": "response.output_text", "reasoning": "response.reasoning_text"}


class Answering:
    """`begin`, then `gained` again and again: each yields events in OpenAI's order, each copied as it is then."""

    def __init__(self, body: ResponseRequest, response_id: str) -> None:
        self.body = body
        self._namespaces = {tool.name: namespace for tool, namespace in body.functions}
        self.id = response_id
        self.response: dict[str, Any] = {}
        """As it is by now."""
        self._num_events = 0
        self._item: dict[str, Any] = {}
        """The newest one; the others are done."""
        self._pieces: list[str] = []
        self._logprobs: list[dict[str, Any]] = []
        """Of the newest item; of tokens whose text has not come out yet, too."""
        self._num_logprobs_sent = 0

    def begin(self, service: Service, params: SamplingParams) -> Iterator[dict[str, Any]]:
        self._tokenizer = service.engine.tokenizer
        self.response = _opened(self.body, self.id, service.model_name, params)
        yield self._event("response.created", response=dict(self.response))
        yield self._event("response.in_progress", response=dict(self.response))

    def gained(self, gained: Gained) -> Iterator[dict[str, Any]]:
        if self.body.wants_logprobs:
            self._logprobs += logprobs_of(self._tokenizer, gained.piece, self.body.top_logprobs or 0)
        for event in gained.events:
            yield from self._told(event)
        if gained.piece.finish_reason is None:
            return
        cut = gained.piece.finish_reason == "length"
        is_half_a_call = self._item.get("type") == "function_call" and gained.piece.finish_reason != "tool_calls"
        yield from self._close("incomplete" if cut or is_half_a_call else "completed")
        if cut:
            self.response |= {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}
        else:
            self.response |= {"status": "completed", "completed_at": now()}
        self.response["usage"] = _usage(usage([gained.output], gained.reasoning_tokens))

    def last(self) -> dict[str, Any]:
        return self._event(f"response.{self.response['status']}", response=self.response)

    def failed(self, error: HexadError) -> dict[str, Any]:
        code = "rate_limit_exceeded" if error.status == 429 else "server_error"
        self.response |= {"status": "failed", "error": {"code": code, "message": str(error)}}
        return self.last()

    def error_event(self, error: HexadError) -> dict[str, Any]:
        return self._event("error", code=error.code, message=str(error), param=error.param)

    def _told(self, event: Event) -> Iterator[dict[str, Any]]:
        match event:
            case Text(text):
                yield from self._write("message", {"role": "assistant"}, text)
            case Reasoning(text):
                yield from self._write("reasoning", {"summary": []}, text)
            case CallStart(_, name):
                space = self._namespaces.get(name)
                known = {"namespace": space, "name": name.removeprefix(f"{space}__")} if space else {"name": name}
                yield from self._open("function_call", {"call_id": call_id(), **known, "arguments": ""})
            case CallArguments(_, text):  # calls come one after another
                self._pieces.append(text)
                yield self._about("response.function_call_arguments.delta", delta=text)

    def _open(self, kind: str, fields: dict[str, Any]) -> Iterator[dict[str, Any]]:
        yield from self._close("completed")
        own = f"{self.id.removeprefix('resp_')}_{len(self.response['output'])}"
        self._item = {"type": kind, "id": new_id(kind, own), "status": "in_progress", **fields}
        self.response["output"] = [*self.response["output"], self._item]
        yield self._event("response.output_item.added", output_index=self._index, item=dict(self._item))

    def _write(self, kind: str, fields: dict[str, Any], text: str) -> Iterator[dict[str, Any]]:
        if self._item.get("type") != kind:
            yield from self._open(kind, fields | {"content": []})
            yield self._about("response.content_part.added", content_index=0, part=self._part(""))
        self._pieces.append(text)
        more: dict[str, Any] = {}
        if kind == "message":
            more = {"logprobs": self._logprobs[self._num_logprobs_sent :]}
            self._num_logprobs_sent = len(self._logprobs)
        yield self._about(f"{_TEXT_EVENTS[kind]}.delta", content_index=0, delta=text, **more)

    def _close(self, status: str) -> Iterator[dict[str, Any]]:
        """What is told at the end of the newest item."""
        if not self._item:
            return
        item, text = self._item, "".join(self._pieces)
        if item["type"] == "function_call":
            item["arguments"] = text
            yield self._about("response.function_call_arguments.done", name=item["name"], arguments=text)
        else:
            part = self._part(text)
            item["content"] = [part]
            if item["type"] == "reasoning" and ENCRYPTED in (self.body.include or ()):
                item["encrypted_content"] = OPEN + text
            more = {"logprobs": part["logprobs"]} if "logprobs" in part else {}
            yield self._about(f"{_TEXT_EVENTS[item['type']]}.done", content_index=0, text=text, **more)
            yield self._about("response.content_part.done", content_index=0, part=part)
        item["status"] = status
        yield self._event("response.output_item.done", output_index=self._index, item=item)
        self._item, self._pieces, self._logprobs, self._num_logprobs_sent = {}, [], [], 0

    def _part(self, text: str) -> dict[str, Any]:
        if self._item["type"] == "reasoning":
            return {"type": "reasoning_text", "text": text}
        return text_part(text) | {"logprobs": self._logprobs[: self._num_logprobs_sent]}

    @property
    def _index(self) -> int:
        return len(self.response["output"]) - 1

    def _about(self, event: str, **fields: Any) -> dict[str, Any]:
        return self._event(event, item_id=self._item["id"], output_index=self._index, **fields)

    def _event(self, event: str, **fields: Any) -> dict[str, Any]:
        self._num_events += 1
        return {"type": event, "sequence_number": self._num_events - 1, **fields}


def _opened(body: ResponseRequest, response_id: str, model: str, params: SamplingParams) -> dict[str, Any]:
    given = body.model_dump(by_alias=True)
    same = ("instructions", "previous_response_id", "max_output_tokens", "max_tool_calls", "metadata", "user")
    return {
        "id": response_id,
        "object": "response",
        "created_at": now(),
        "status": "in_progress",
        "model": model,
        "output": [],
        "error": None,
        "incomplete_details": None,
        "tools": given["tools"] or [],
        "tool_choice": given["tool_choice"] or "auto",
        "parallel_tool_calls": body.parallel_tool_calls is not False,
        "temperature": params.temperature,
        "top_p": params.top_p,
        "top_logprobs": body.top_logprobs or 0,
        "text": _text(body.text or TextOptions()),
        "reasoning": {"effort": body.reasoning.effort if body.reasoning else None, "summary": None},
        "truncation": "disabled",
        "background": False,
        "store": body.store is not False,
        "service_tier": "default",
        **{name: given[name] for name in same if given[name] is not None or name != "user"},
    }


def _text(text: TextOptions) -> dict[str, Any]:
    form = text.format.model_dump(by_alias=True, exclude_none=True) if text.format else {"type": "text"}
    return {"format": form, "verbosity": "medium"}


def _usage(counted: dict[str, Any]) -> dict[str, Any]:
    cached = counted["prompt_tokens_details"]["cached_tokens"]
    return {
        "input_tokens": counted["prompt_tokens"],
        "input_tokens_details": {"cached_tokens": cached, "cache_write_tokens": 0},
        "output_tokens": counted["completion_tokens"],
        "output_tokens_details": counted["completion_tokens_details"],
        "total_tokens": counted["total_tokens"],
    }
