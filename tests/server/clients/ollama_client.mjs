// The official `ollama` client for JavaScript against a running server: node ollama_client.mjs URL
import assert from "node:assert/strict";
import { Ollama } from "ollama";

const client = new Ollama({ host: process.argv[2] });
const say = (content) => [{ role: "user", content }];
const greedy = { model: "demo", options: { temperature: 0, num_predict: 60 } };
const city = { type: "object", properties: { city: { type: "string" } }, required: ["city"] };
const tools = [{ type: "function", function: { name: "get_weather", description: "Weather in a place", parameters: city } }];
const asked = { ...greedy, messages: say("What is the weather in Oslo?"), tools };

const whole = await client.chat({ ...greedy, messages: say("What is 12 + 30?") });
assert.match(whole.message.content, /42/);
assert(whole.done && whole.eval_count > 0 && whole.total_duration > 0);
let text = "";
for await (const part of await client.chat({ ...greedy, messages: say("What is 12 + 30?"), stream: true })) {
  text += part.message.content;
}
assert.equal(text, whole.message.content);

// A tool, streamed and not, and its result.
const { message } = await client.chat(asked);
const call = { name: "get_weather", arguments: { city: "Oslo" } };
assert.equal(message.tool_calls[0].function.name, call.name);
assert.deepEqual(message.tool_calls[0].function.arguments, call.arguments);
let streamed = [];
for await (const part of await client.chat({ ...asked, stream: true })) streamed = streamed.concat(part.message.tool_calls ?? []);
assert.deepEqual(streamed[0].function.arguments, call.arguments);
const answered = [...asked.messages, message, { role: "tool", tool_name: call.name, content: "rain, 7 degrees" }];
assert.match((await client.chat({ ...asked, messages: answered })).message.content, /7/);

// A shape, a plain prompt, what there is.
const shaped = await client.chat({ ...greedy, messages: say("Where is the tower?"), format: city });
assert.equal(typeof JSON.parse(shaped.message.content).city, "string");
const generated = await client.generate({ ...greedy, prompt: "What is 12 + 30?" });
assert.equal(generated.response, text);
let parts = [];  // at least two: what there is to say, in as many as the server has time for, and the end
for await (const part of await client.generate({ ...greedy, prompt: "What is 12 + 30?", stream: true })) parts.push(part);
assert(parts.length > 1 && parts.map(({ response }) => response).join("") === text && parts.every(({ done }, at) => done === (at === parts.length - 1)));
assert((await client.list()).models.some(({ name }) => name.startsWith("demo")));
assert((await client.show({ model: "demo" })).capabilities.includes("tools"));
assert((await client.ps()).models.some(({ name }) => name.startsWith("demo")));
assert.match((await client.version()).version, /^\d/);
assert.equal((await client.pull({ model: "demo" })).status, "success");

// Errors, and a stream that is left.
await assert.rejects(client.chat({ model: "none", messages: say("hi") }), (error) => error.status_code === 404);
await assert.rejects(client.chat({ ...greedy, messages: say("hi"), format: { type: "strnig" } }), /strnig/);
await assert.rejects(client.chat({ ...greedy, messages: say("word ".repeat(4000)) }), /prompt is too long/);
await assert.rejects(client.embed({ model: "demo", input: "hi" }));
const left = await client.generate({ model: "demo", prompt: "Once", stream: true, options: { num_predict: 2000 } });
await assert.rejects(async () => {
  for await (const _ of left) left.abort();
}, { name: "AbortError" });
console.log("all well");
