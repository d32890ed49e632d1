// The official `openai` client for JavaScript against a running server: node openai_client.mjs URL
import assert from "node:assert/strict";
import OpenAI from "openai";
import { zodFunction, zodResponseFormat, zodTextFormat } from "openai/helpers/zod";
import { z } from "zod";

const client = new OpenAI({ baseURL: `${process.argv[2]}/v1`, apiKey: "unused", maxRetries: 0 });
const model = "demo";
const say = (content) => [{ role: "user", content }];
const City = z.object({ city: z.string() });
const weather = { name: "get_weather", description: "Weather in a place", parameters: z.toJSONSchema(City) };
const greedy = { model, temperature: 0, max_tokens: 60 };
const asked = say("What is the weather in Oslo?");

// Chat, whole and streamed.
const whole = await client.chat.completions.create({ ...greedy, messages: say("What is 12 + 30?") });
assert.match(whole.choices[0].message.content, /42/);
let text = "";
const parts = await client.chat.completions.create({
  ...greedy, messages: say("What is 12 + 30?"), stream: true, stream_options: { include_usage: true },
});
let usage;
for await (const part of parts) {
  text += part.choices[0]?.delta.content ?? "";
  usage = part.usage ?? usage;
}
assert.equal(text, whole.choices[0].message.content);
assert.equal(usage.total_tokens, whole.usage.total_tokens);

// A tool that the client runs by itself, streamed and not.
for (const stream of [false, true]) {
  const called = [];
  const tool = zodFunction({
    ...weather, parameters: City,
    function: ({ city }) => (called.push(city), "rain, 7 degrees"),
  });
  const runner = client.chat.completions.runTools({ ...greedy, messages: asked, tools: [tool], stream });
  assert.match(await runner.finalContent(), /7/);
  assert.deepEqual(called, ["Oslo"]);
}

// A shape.
const Person = z.object({ name: z.string(), age: z.number().int() });
const shaped = await client.chat.completions.parse({
  ...greedy, messages: say("Anna is 30 years old."), response_format: zodResponseFormat(Person, "person"),
});
Person.parse(shaped.choices[0].message.parsed);

// Completions.
const completion = await client.completions.create({ ...greedy, prompt: "Once upon", max_tokens: 5 });
assert.equal(completion.usage.completion_tokens, 5);

// Responses: whole, streamed, gone on from, a tool, a shape.
const ask = { model, temperature: 0, max_output_tokens: 60 };
const first = await client.responses.create({ ...ask, input: "What is 12 + 30?" });
assert.equal(first.output_text, text);
const stream = client.responses.stream({ ...ask, input: "What is 12 + 30?" });
let told = "";
stream.on("response.output_text.delta", (event) => (told += event.delta));
assert.equal((await stream.finalResponse()).output_text, told);
assert.equal(told, text);
const next = await client.responses.create({ ...ask, input: "And 2 + 3?", previous_response_id: first.id });
assert.equal((await client.responses.retrieve(next.id)).previous_response_id, first.id);
const call = (await client.responses.create({ ...ask, input: asked, tools: [{ type: "function", ...weather }] })).output[0];
assert.deepEqual([call.type, JSON.parse(call.arguments)], ["function_call", { city: "Oslo" }]);
const result = { type: "function_call_output", call_id: call.call_id, output: "rain, 7 degrees" };
assert.match((await client.responses.create({ ...ask, input: [...asked, call, result] })).output_text, /7/);
const parsed = await client.responses.parse({
  ...ask, input: "Anna is 30 years old.", text: { format: zodTextFormat(Person, "person") },
});
Person.parse(parsed.output_parsed);

// Errors, and a stream that is left.
await assert.rejects(client.chat.completions.create({ model: "gpt-9", messages: asked }), OpenAI.NotFoundError);
await assert.rejects(
  client.chat.completions.create({ ...greedy, messages: say("word ".repeat(4000)) }),
  (error) => error instanceof OpenAI.BadRequestError && error.code === "context_length_exceeded",
);
const left = await client.chat.completions.create({ ...greedy, messages: asked, max_tokens: 2000, stream: true });
for await (const _ of left) break;
assert(left.controller.signal.aborted);
const control = new AbortController();
const slow = client.completions.create(
  { model, prompt: "Once", max_tokens: 2000, ignore_eos: true }, { signal: control.signal },
);
setTimeout(() => control.abort(), 50);
await assert.rejects(slow, OpenAI.APIUserAbortError);
assert((await client.models.list()).data.some(({ id }) => id === model));
console.log("all well");
