"""langchain-openai against a running server: python langchain_chat.py URL, as test_other_clients.py does."""

import sys
from typing import Literal

import openai
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAI
from pydantic import BaseModel

URL = sys.argv[1] + "/v1"
ASKED = HumanMessage("What is the weather in Oslo?")


class Verdict(BaseModel):
    verdict: Literal["yes", "no"]


@tool
def get_weather(city: str) -> str:
    """Weather of a city."""
    return '{"weather": "rain"}'


def chat(**more: object) -> ChatOpenAI:
    return ChatOpenAI(model="demo", base_url=URL, api_key="unused", temperature=0, max_tokens=60, max_retries=0, **more)


whole = chat().invoke([ASKED])
assert whole.content and whole.usage_metadata["output_tokens"] > 0
assert "".join(chunk.content for chunk in chat().stream([ASKED])) == whole.content
called = chat().bind_tools([get_weather]).invoke([ASKED])
assert called.tool_calls[0]["args"] == {"city": "Oslo"}
answered = (
    chat()
    .bind_tools([get_weather])
    .invoke(
        [
            ASKED,
            called,
            ToolMessage(get_weather.invoke(called.tool_calls[0]["args"]), tool_call_id=called.tool_calls[0]["id"]),
        ]
    )
)
assert "rain" in answered.content
merged = None
for chunk in chat().bind_tools([get_weather], tool_choice="any").stream([ASKED]):
    merged = chunk if merged is None else merged + chunk
assert merged.tool_calls[0]["name"] == "get_weather"
for method in ("json_schema", "function_calling"):
    assert chat().with_structured_output(Verdict, method=method).invoke([ASKED]).verdict in ("yes", "no")
assert chat(use_responses_api=True).invoke([ASKED]).text
assert OpenAI(model="demo", base_url=URL, api_key="unused", max_tokens=5).invoke("The harbour")
try:
    chat(top_p=7).invoke([ASKED])
except openai.BadRequestError as refused:
    assert refused.param == "top_p"
else:
    raise AssertionError("top_p 7 was taken")
print("all well")
