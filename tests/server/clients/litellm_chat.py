"""litellm against a running server: python litellm_chat.py URL, as test_other_clients.py does."""

import json
import sys
from typing import Any

import litellm

URL = sys.argv[1] + "/v1"
MODEL = "openai/demo"
SAYS = [{"role": "user", "content": "What is the weather in Oslo?"}]
CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER = {"type": "function", "function": {"name": "get_weather", "parameters": CITY}}
FORM = {"type": "json_schema", "json_schema": {"name": "c", "schema": {"enum": ["yes", "no"]}, "strict": True}}


def ask(**more: Any) -> Any:
    return litellm.completion(
        model=MODEL, messages=SAYS, api_base=URL, api_key="unused", max_tokens=60, temperature=0, num_retries=0, **more
    )


whole = ask().choices[0].message.content
assert whole and whole == "".join(chunk.choices[0].delta.content or "" for chunk in ask(stream=True))
(call,) = ask(tools=[WEATHER]).choices[0].message.tool_calls
assert call.function.name == "get_weather" and json.loads(call.function.arguments) == {"city": "Oslo"}
built = litellm.stream_chunk_builder(list(ask(tools=[WEATHER], stream=True)))
assert json.loads(built.choices[0].message.tool_calls[0].function.arguments) == {"city": "Oslo"}
assert json.loads(ask(response_format=FORM).choices[0].message.content) in ("yes", "no")
answer = litellm.responses(model=MODEL, input="Who are you?", api_base=URL, api_key="unused", max_output_tokens=5)
assert answer.output[0].content[0].text
for more in ({"messages": [{"role": "user", "content": "word " * 4000}]}, {"max_tokens": 9999}):
    try:
        litellm.completion(model=MODEL, api_base=URL, api_key="unused", num_retries=0, **({"messages": SAYS} | more))
    except litellm.ContextWindowExceededError:
        continue
    raise AssertionError("too long was taken")
try:
    ask(top_p=7)
except litellm.BadRequestError as refused:
    assert "top_p" in str(refused)
else:
    raise AssertionError("top_p 7 was taken")
print("all well")
