"""OpenAI's SDK for agents, pydantic-ai and instructor: python frameworks.py URL, as test_other_clients.py does."""

import asyncio
import sys
from typing import Any

import instructor
from agents import (
    Agent,
    OpenAIChatCompletionsModel,
    Runner,
    SQLiteSession,
    function_tool,
    set_default_openai_client,
    set_tracing_disabled,
)
from openai import AsyncOpenAI, OpenAI
from pydantic import BaseModel
from pydantic_ai import Agent as PydanticAgent
from pydantic_ai import NativeOutput, ToolOutput
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.openai import OpenAIProvider

URL = sys.argv[1] + "/v1"
WEATHER = "What is the weather in Oslo?"
PERSON = "Extract name, age as JSON: Wendel Ardmoor, aged 41, lives in Harwick."


class Person(BaseModel):
    name: str
    age: int


def get_weather(city: str) -> str:
    """Weather of a city."""
    assert city == "Oslo"
    return "rain, 7 degrees"


async def agents(client: AsyncOpenAI) -> None:
    set_tracing_disabled(True)
    set_default_openai_client(client)
    models: list[Any] = ["demo", OpenAIChatCompletionsModel("demo", client)]
    for number, model in enumerate(models):
        agent = Agent(name="a", model=model, tools=[function_tool(get_weather)])
        session = SQLiteSession(f"session {number}")
        assert "7" in (await Runner.run(agent, WEATHER, session=session)).final_output
        assert "7" in (await Runner.run(agent, "What is 3 + 4?", session=session)).final_output
        streamed = Runner.run_streamed(agent, WEATHER)
        async for _ in streamed.stream_events():
            pass
        assert "7" in streamed.final_output
        shaped = await Runner.run(Agent(name="b", model=model, output_type=Person), PERSON)
        assert shaped.final_output.age == 41


async def pydantic_ai(client: AsyncOpenAI) -> None:
    for kind in (OpenAIChatModel, OpenAIResponsesModel):
        model = kind("demo", provider=OpenAIProvider(openai_client=client))
        asked = await PydanticAgent(model, tools=[get_weather]).run(WEATHER)
        assert "7" in asked.output
        more = await PydanticAgent(model).run("What is 3 + 4?", message_history=asked.all_messages())
        assert "7" in more.output
        for form in (ToolOutput(Person), NativeOutput(Person)):
            assert (await PydanticAgent(model, output_type=form).run(PERSON)).output.age == 41


def instructed(client: OpenAI) -> None:
    for mode in (instructor.Mode.TOOLS, instructor.Mode.JSON, instructor.Mode.JSON_SCHEMA):
        ask = instructor.from_openai(client, mode=mode).chat.completions.create
        asked: Any = {"model": "demo", "messages": [{"role": "user", "content": PERSON}], "temperature": 0}
        assert ask(response_model=Person, max_retries=0, **asked).age == 41


async def main() -> None:
    client = AsyncOpenAI(base_url=URL, api_key="unused", max_retries=0)
    await agents(client)
    await pydantic_ai(client)
    instructed(OpenAI(base_url=URL, api_key="unused", max_retries=0))
    print("all well")


asyncio.run(main())
