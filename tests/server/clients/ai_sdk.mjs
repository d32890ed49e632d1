// Vercel's `ai` with its providers for OpenAI, Anthropic and whoever speaks OpenAI's dialect: node ai_sdk.mjs URL
import assert from "node:assert/strict";
import { createAnthropic } from "@ai-sdk/anthropic";
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { APICallError, Output, generateText, stepCountIs, streamText, tool } from "ai";
import { z } from "zod";

const baseURL = `${process.argv[2]}/v1`;
const apiKey = "unused";
const openai = createOpenAI({ baseURL, apiKey });
const models = {
  responses: openai("demo"),
  chat: openai.chat("demo"),
  compatible: createOpenAICompatible({ name: "hexad", baseURL, apiKey, supportsStructuredOutputs: true })("demo"),
  anthropic: createAnthropic({ baseURL, apiKey })("demo"),
};
const Person = z.object({ name: z.string(), age: z.number() });

for (const [name, model] of Object.entries(models)) {
  const base = { model, temperature: 0, maxOutputTokens: 60, maxRetries: 0 };
  const whole = await generateText({ ...base, prompt: "What is 12 + 30?" });
  assert.match(whole.text, /42/, name);
  assert(whole.usage.inputTokens > 0 && whole.usage.outputTokens > 0, name);
  const stream = streamText({ ...base, prompt: "What is 12 + 30?" });
  let text = "";
  for await (const part of stream.textStream) text += part;
  assert.equal(text, whole.text, name);

  // The second turn: with responses, a reference to what the assistant said in the first.
  const first = { role: "user", content: "Who are you?" };
  const said = (await generateText({ ...base, messages: [first] })).response.messages;
  const second = await generateText({ ...base, messages: [first, ...said, { role: "user", content: "What is 12 + 30?" }] });
  assert.match(second.text, /42/, name);

  // A tool that the SDK runs by itself, streamed and not.
  const called = [];
  const execute = ({ city }) => (called.push(city), "rain, 7 degrees");
  const get_weather = tool({ description: "Weather in a place", inputSchema: z.object({ city: z.string() }), execute });
  const asked = { ...base, prompt: "What is the weather in Oslo?", tools: { get_weather }, stopWhen: stepCountIs(3) };
  assert.match((await generateText(asked)).text, /7/, name);
  assert.match(await streamText(asked).text, /7/, name);
  assert.deepEqual(called, ["Oslo", "Oslo"], name);

  const shaped = await generateText({ ...base, prompt: "Anna is 30 years old.", output: Output.object({ schema: Person }) });
  Person.parse(shaped.output);
  await assert.rejects(
    generateText({ ...base, prompt: "word ".repeat(4000) }),
    (error) => APICallError.isInstance(error) && error.statusCode === 400 && /prompt is too long/.test(error.message),
    name,
  );
}
console.log("all well");
