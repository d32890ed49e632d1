"""POST /tokenize and /detokenize, in vLLM's shapes."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from hexad.server.conversation import conversation_tokens
from hexad.server.generation import Service
from hexad.server.openai_types import DetokenizeRequest, TokenizeChatRequest, TokenizeRequest
from hexad.server.wire import check_body, json_response, read_json


async def tokenize(service: Service, request: Request) -> Response:
    value = await read_json(request)
    if isinstance(value, dict) and "messages" in value:
        chat = check_body(TokenizeChatRequest, value)
        service.check_model(chat.model)
        tokens, wants_texts = await conversation_tokens(service, chat), chat.return_token_strs
    else:
        plain = check_body(TokenizeRequest, value)
        service.check_model(plain.model)
        tokens, wants_texts = await service.encode(plain.prompt, plain.add_special_tokens), plain.return_token_strs
    tokenizer = service.engine.tokenizer
    return json_response(
        {
            "count": len(tokens),
            "max_model_len": service.engine.max_model_len,
            "tokens": tokens,
            "token_strs": [tokenizer.token_text(token) for token in tokens] if wants_texts else None,
        }
    )


async def detokenize(service: Service, request: Request) -> Response:
    body = check_body(DetokenizeRequest, await read_json(request))
    service.check_model(body.model)
    service.engine.tokenizer.check_ids(body.tokens, "tokens")
    return json_response({"prompt": service.engine.tokenizer.decode(body.tokens, skip_special_tokens=False)})
