"""POST /tokenize and /detokenize, in vLLM's shapes and in llama.cpp's."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from hexad.errors import ContextTooLong
from hexad.server.conversation import conversation_prompt
from hexad.server.dialect import OPENAI, Route
from hexad.server.llama_cpp import ContentRequest, tokenize_content
from hexad.server.models import Models
from hexad.server.openai_types import DetokenizeRequest, TokenizeChatRequest, TokenizeRequest
from hexad.server.wire import json_response, read_body, read_one_of

Asked = TokenizeRequest | TokenizeChatRequest | ContentRequest


async def tokenize(models: Models, request: Request) -> Response:
    body = await read_one_of(request, _asked)
    async with models.use(body.model, request.state.caller) as service:
        if isinstance(body, ContentRequest):
            return json_response(await tokenize_content(service, body))
        if isinstance(body, TokenizeChatRequest):
            _, tokens = await conversation_prompt(service, body)
        else:
            tokens = await service.encode(body.prompt, body.add_special_tokens)
        told: dict[str, Any] = {"count": len(tokens), "max_model_len": service.engine.max_model_len, "tokens": tokens}
        if body.return_token_strs:
            token_text = service.engine.tokenizer.token_text
            told["token_strs"] = await service.beside(len(tokens), lambda: [token_text(token) for token in tokens])
        return json_response({"token_strs": None} | told)


def _asked(value: Any) -> type[Asked]:
    names = value if isinstance(value, dict) else {}
    return ContentRequest if "content" in names else TokenizeChatRequest if "messages" in names else TokenizeRequest


async def detokenize(models: Models, request: Request) -> Response:
    body = await read_body(request, DetokenizeRequest)
    async with models.use(body.model, request.state.caller) as service:
        tokenizer, most = service.engine.tokenizer, service.engine.max_model_len
        if len(body.tokens) > most:
            raise ContextTooLong(f"tokens holds {len(body.tokens)}; this model's context is {most}", param="tokens")

        def text_of() -> str:
            tokenizer.check_ids(body.tokens, "tokens")
            return tokenizer.decode(body.tokens, skip_special_tokens=False)

        text = await service.beside(len(body.tokens), text_of)
        # Both ask in the same words: "prompt" is vLLM's answer, "content" is llama.cpp's.
        return json_response({"prompt": text, "content": text})


ROUTES = (
    Route("POST", "/tokenize", tokenize, OPENAI, Asked),
    Route("POST", "/detokenize", detokenize, OPENAI, DetokenizeRequest),
)
