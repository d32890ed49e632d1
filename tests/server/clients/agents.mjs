// OpenAI's SDK for agents, over responses and over chats: node agents.mjs URL
import assert from "node:assert/strict";
import { Agent, run, setDefaultOpenAIClient, setOpenAIAPI, setTracingDisabled, tool } from "@openai/agents";
import OpenAI from "openai";
import { z } from "zod";

setTracingDisabled(true);
setDefaultOpenAIClient(new OpenAI({ baseURL: `${process.argv[2]}/v1`, apiKey: "unused", maxRetries: 0 }));
const execute = async ({ city }) => (assert.equal(city, "Oslo"), "rain, 7 degrees");
const get_weather = tool({ name: "get_weather", description: "Weather", parameters: z.object({ city: z.string() }), execute });
const outputType = z.object({ name: z.string(), age: z.number() });

for (const api of ["responses", "chat_completions"]) {
  setOpenAIAPI(api);
  const agent = new Agent({ name: "a", model: "demo", tools: [get_weather] });
  for (const stream of [false, true]) {
    const asked = await run(agent, "What is the weather in Oslo?", { stream });
    if (stream) for await (const _ of asked);
    assert.match(asked.finalOutput, /7/, api);
    const more = await run(agent, [...asked.history, { role: "user", content: "What is 3 + 4?" }]);
    assert.match(more.finalOutput, /7/, api);
  }
  const shaped = await run(new Agent({ name: "b", model: "demo", outputType }), "Anna is 30 years old.");
  outputType.parse(shaped.finalOutput);
}
console.log("all well");
