// The API as the server's own OpenAPI document describes it. It knows JSON Schema; it knows no endpoint by name.
import { apiKey, getJson } from "./api.js";
import { h } from "./dom.js";

const $ = (id) => document.getElementById(id);
const GROUPS = [
  ["Ollama", /^\/api\//],
  ["Anthropic", /^\/v1\/messages/],
  ["OpenAI", /^\/v1\//],
  ["Admin", /^\/(admin|debug)\//],
  ["The page", /^\/($|docs|web\/)/],
  ["Tokens, prompts and state", /./],
];
const ORDER = ["OpenAI", "Anthropic", "Ollama", "Tokens, prompts and state", "Admin", "The page"];
// What is known and refused: no use to a reader.
const REFUSED = new Set(["Absent", "Refuse"]);

let shared = {};
const resolved = (schema) => (schema.$ref ? shared[schema.$ref.split("/").pop()] ?? {} : schema);

/** The schemas that a value may have, without null. */
function kinds(schema) {
  const found = resolved(schema);
  const several = found.anyOf ?? found.oneOf;
  return several ? several.flatMap(kinds) : found.type === "null" ? [] : [found];
}

function named(kind) {
  if (kind.const !== undefined) return JSON.stringify(kind.const);
  if (kind.enum) return kind.enum.map((value) => JSON.stringify(value)).join(", ");
  if (kind.type === "array") return `list of ${names(kind.items ?? {})}`;
  if (kind.type === "object" || kind.properties) return kind.title && kind.properties ? kind.title : "object";
  return kind.type ?? "any value";
}
const names = (schema) => [...new Set(kinds(schema).map(named))].join(" or ") || "null";

/** Everything with fields of its own in a value of this schema. */
const objects = (schema) =>
  kinds(schema).flatMap((kind) => (kind.properties ? [kind] : kind.type === "array" ? objects(kind.items ?? {}) : []));

/** A fold whose content is made when it is first opened, for schemas may contain themselves. */
function fold(label, content) {
  const element = h("details", {}, h("summary", {}, ...label));
  element.addEventListener("toggle", () => element.append(...content()), { once: true });
  return element;
}

function table(schema) {
  const needed = new Set(schema.required ?? []);
  const row = ([name, field]) => {
    const inside = objects(field);
    const text = names(field) + (field.default != null ? `, default ${JSON.stringify(field.default)}` : "");
    const about = inside.length ? fold([text], () => inside.map(table)) : text;
    return h("tr", {}, h("td", {}, name, needed.has(name) && h("span", { class: "needed" }, " needed")), h("td", {}, about));
  };
  return h("table", {}, h("tbody", {}, Object.entries(schema.properties).map(row)));
}

function operation(path, method, about) {
  const body = about.requestBody?.content["application/json"].schema;
  const answers = Object.keys(about.responses["200"].content).join(" or ");
  return fold([h("span", { class: "method" }, method.toUpperCase()), path], () => [
    ...(body ? objects(body).map(table) : [h("p", {}, "No body.")]),
    h("p", { class: "needed" }, `Answers with ${answers}.`),
  ]);
}

async function show() {
  let document;
  try {
    document = await getJson("/openapi.json");
  } catch (error) {
    $("ask").hidden = error.status !== 401;
    $("why").textContent = apiKey.get() ? "The server does not take this key." : "This server wants an API key.";
    if (error.status !== 401) $("paths").textContent = error.message;
    return;
  }
  $("ask").hidden = true;
  shared = document.components.schemas;
  const groups = new Map(ORDER.map((name) => [name, []]));
  for (const [path, methods] of Object.entries(document.paths)) {
    const [group] = GROUPS.find(([, pattern]) => pattern.test(path));
    for (const [method, about] of Object.entries(methods)) {
      if (method !== "head" && !REFUSED.has(about.summary)) groups.get(group).push(operation(path, method, about));
    }
  }
  $("paths").replaceChildren(...[...groups].flatMap(([name, found]) => [h("h2", {}, name), ...found]));
}

$("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  apiKey.set($("key").value.trim());
  show();
});
show();
