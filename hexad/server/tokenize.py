"""POST /tokenize and /detokenize, in vLLM's shapes."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from hexad.server.conversation import conversation_tokens
from hexad.server.dialect import OPENAI, Route
from hexad.server.models import Models
from hexad.server.openai_types import DetokenizeRequest, TokenizeChatRequest, TokenizeRequest
from hexad.server.wire import check_body, json_response, read_json


async def tokenize(models: Models, request: Request) -> Response:
    value = await read_json(request)
    body: TokenizeChatRequest | TokenizeRequest
    if isinstance(value, dict) and "messages" in value:
        body = check_body(TokenizeChatRequest, value)
    else:
        body = check_body(TokenizeRequest, value)
    async with models.use(body.model) as service:
        if isinstance(body, TokenizeChatRequest):
            tokens = await conversation_tokens(service, body)
        else:
            tokens = await service.encode(body.prompt, body.add_special_tokens)
        tokenizer = service.engine.tokenizer
        return json_response(
            {
                "count": len(tokens),
                "max_model_len": service.engine.max_model_len,
                "tokens": tokens,
                "token_strs": [tokenizer.token_text(token) for token in tokens] if body.return_token_strs else None,
            }
        )


async def detokenize(models: Models, request: Request) -> Response:
    body = check_body(DetokenizeRequest, await read_json(request))
    async with models.use(body.model) as service:
        tokenizer = service.engine.tokenizer
        tokenizer.check_ids(body.tokens, "tokens")
        return json_response({"prompt": tokenizer.decode(body.tokens, skip_special_tokens=False)})


ROUTES = (
    Route("POST", "/tokenize", tokenize, OPENAI, TokenizeRequest | TokenizeChatRequest),
    Route("POST", "/detokenize", detokenize, OPENAI, DetokenizeRequest),
)
