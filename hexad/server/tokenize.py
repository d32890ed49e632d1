"""POST /tokenize and /detokenize, in vLLM's shapes and in llama.cpp's."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from hexad.server.conversation import conversation_prompt
from hexad.server.dialect import OPENAI, Route
from hexad.server.llama_cpp import ContentRequest, tokenize_content
from hexad.server.models import Models
from hexad.server.openai_types import DetokenizeRequest, TokenizeChatRequest, TokenizeRequest
from hexad.server.wire import check_body, json_response, read_json


async def tokenize(models: Models, request: Request) -> Response:
    value = await read_json(request)
    if isinstance(value, dict) and "content" in value:
        return await tokenize_content(models, value)
    body: TokenizeChatRequest | TokenizeRequest
    if isinstance(value, dict) and "messages" in value:
        body = check_body(TokenizeChatRequest, value)
    else:
        body = check_body(TokenizeRequest, value)
    async with models.use(body.model) as service:
        if isinstance(body, TokenizeChatRequest):
            _, tokens = await conversation_prompt(service, body)
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
        text = tokenizer.decode(body.tokens, skip_special_tokens=False)
        # Both ask in the same words: "prompt" is vLLM's answer, "content" is llama.cpp's.
        return json_response({"prompt": text, "content": text})


ROUTES = (
    Route("POST", "/tokenize", tokenize, OPENAI, TokenizeRequest | TokenizeChatRequest | ContentRequest),
    Route("POST", "/detokenize", detokenize, OPENAI, DetokenizeRequest),
)
