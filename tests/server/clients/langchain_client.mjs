// `@langchain/openai` against a running server: node langchain_client.mjs URL
import assert from "node:assert/strict";
import { ToolMessage } from "@langchain/core/messages";
import { tool } from "@langchain/core/tools";
import { ChatOpenAI } from "@langchain/openai";
import { z } from "zod";

const configuration = { baseURL: `${process.argv[2]}/v1` };
const asked = ["human", "What is the weather in Oslo?"];
const get_weather = tool(() => "rain, 7 degrees", {
  name: "get_weather", description: "Weather in a place", schema: z.object({ city: z.string() }),
});

for (const useResponsesApi of [false, true]) {
  const chat = new ChatOpenAI({
    model: "demo", temperature: 0, maxTokens: 60, maxRetries: 0, apiKey: "unused", configuration, useResponsesApi,
  });
  const whole = await chat.invoke("What is 12 + 30?");
  assert.match(whole.text, /42/);
  let text = "";
  for await (const part of await chat.stream("What is 12 + 30?")) text += part.text;
  assert.equal(text, whole.text);
  const bound = chat.bindTools([get_weather]);
  const called = await bound.invoke([asked]);
  const [call] = called.tool_calls;
  assert.deepEqual([call.name, call.args], ["get_weather", { city: "Oslo" }]);
  const result = new ToolMessage({ tool_call_id: call.id, content: await get_weather.invoke(call.args) });
  assert.match((await bound.invoke([asked, called, result])).text, /7/);
  const Verdict = z.object({ verdict: z.enum(["yes", "no"]) });
  Verdict.parse(await chat.withStructuredOutput(Verdict).invoke("Is it so?"));
}
console.log("all well");
