// The official `@anthropic-ai/sdk` for JavaScript against a running server: node anthropic_client.mjs URL
import assert from "node:assert/strict";
import Anthropic from "@anthropic-ai/sdk";

const client = new Anthropic({ baseURL: process.argv[2], apiKey: "unused", maxRetries: 0 });
const say = (content) => [{ role: "user", content }];
const greedy = { model: "demo", temperature: 0, max_tokens: 60 };
const input_schema = { type: "object", properties: { city: { type: "string" } }, required: ["city"] };
const weather = { name: "get_weather", description: "Weather in a place", input_schema };
const asked = { ...greedy, messages: say("What is the weather in Oslo?"), tools: [weather] };

const whole = await client.messages.create({ ...greedy, messages: say("What is 12 + 30?") });
assert.match(whole.content[0].text, /42/);
assert.equal(whole.stop_reason, "end_turn");
const stream = client.messages.stream({ ...greedy, messages: say("What is 12 + 30?") });
let text = "";
stream.on("text", (delta) => (text += delta));
assert.deepEqual((await stream.finalMessage()).content, whole.content);
assert.equal(text, whole.content[0].text);

// A tool, streamed and not, and its result.
const called = await client.messages.create(asked);
const [call] = called.content;
assert.deepEqual([called.stop_reason, call.name, call.input], ["tool_use", "get_weather", { city: "Oslo" }]);
assert.deepEqual((await client.messages.stream(asked).finalMessage()).content[0].input, call.input);
const result = { type: "tool_result", tool_use_id: call.id, content: "rain, 7 degrees" };
const messages = [...asked.messages, { role: "assistant", content: called.content }, { role: "user", content: [result] }];
assert.match((await client.messages.create({ ...asked, messages })).content[0].text, /7/);
const forced = { ...asked, messages: say("Hello!"), tool_choice: { type: "tool", name: "get_weather" } };
assert.equal((await client.messages.create(forced)).stop_reason, "tool_use");

// The client's own loop over tools, which is in its beta: /v1/messages?beta=true.
const runner = client.beta.messages.toolRunner({
  ...asked, max_iterations: 3,
  tools: [{ ...weather, type: "custom", run: ({ city }) => `${city}: rain, 7 degrees`, parse: (input) => input }],
});
assert.match((await runner).content[0].text, /7/);

const { input_tokens } = await client.messages.countTokens({ model: "demo", messages: say("What is 12 + 30?") });
assert.equal(input_tokens, whole.usage.input_tokens + whole.usage.cache_read_input_tokens);
const known = [];
for await (const { id } of client.models.list()) known.push(id);
assert(known.includes("demo"));

// Errors, and a stream that is left.
await assert.rejects(client.messages.create({ ...asked, model: "claude-9" }), Anthropic.NotFoundError);
await assert.rejects(client.messages.create({ ...asked, top_k: -9 }), Anthropic.BadRequestError);
await assert.rejects(
  client.messages.create({ ...greedy, messages: say("word ".repeat(4000)) }),
  (error) => error.status === 400 && error.error.error.message.startsWith("prompt is too long: "),
);
const left = client.messages.stream({ ...greedy, messages: say("Tell me a story."), max_tokens: 2000 });
left.once("text", () => left.abort());
await assert.rejects(left.done(), Anthropic.APIUserAbortError);
console.log("all well");
