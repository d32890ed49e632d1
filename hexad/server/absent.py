"""What others have and Hexad has not: told in one sentence, in the shape that clients read as an error."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from hexad.errors import NotFound
from hexad.server.dialect import OPENAI, Route
from hexad.server.models import Models

INSTEAD = {
    "/v1/embeddings": "embeddings are not there yet",
    "/v1/audio": "Hexad has no models of sound",
    "/v1/images": "Hexad has no models of pictures",
    "/v1/moderations": "Hexad moderates nothing; ask a chat model for a verdict",
    "/v1/files": "nothing is uploaded; `hexad batch` reads and writes OpenAI's batch files on your machine",
    "/v1/batches": "`hexad batch in.jsonl out.jsonl` runs OpenAI's batch files",
    "/v1/fine_tuning": "Hexad trains nothing",
    "/v1/conversations": "give previous_response_id to /v1/responses, or the whole conversation as its input",
    "/v1/responses/input_tokens": "POST /tokenize counts the tokens of a text or of messages",
    "/v1/responses/compact": "send what is to stay as input",
    "/props": "/v1/models tells the context of a model, /api/show its template",
    "/slots": "requests run in no slots; /metrics tells what runs and waits",
}


async def absent(models: Models, request: Request) -> Response:
    path = request.scope["path"]
    what = next(why for name, why in INSTEAD.items() if path.startswith(name))
    # Not 501: official clients would try it twice more.
    raise NotFound(f"{path[:100]} is not implemented: {what}", code="not_implemented")


ROUTES = tuple(Route(method, name + "{rest:path}", absent, OPENAI) for name in INSTEAD for method in ("GET", "POST"))
