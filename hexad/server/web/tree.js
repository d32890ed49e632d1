// A conversation is a tree: editing a message or asking again adds a branch and loses nothing. No storage, no elements.

/** The parent of a first message. */
export const ROOT = "";

/** crypto.randomUUID would need https. */
export function newId() {
  return Array.from(crypto.getRandomValues(new Uint8Array(12)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

export function newConversation() {
  const now = Date.now();
  return { id: newId(), title: "", created: now, updated: now, system: "", tools: "", nodes: {}, chosen: {} };
}

/** Adds a message under `parent` and shows that branch. `node`: { role, content, ... }. */
export function add(conversation, parent, node) {
  const added = { id: newId(), parent, created: Date.now(), ...node };
  conversation.nodes[added.id] = added;
  conversation.chosen[parent] = added.id;
  return added;
}

/** What is shown, from the first message to the last: [{ node, siblings: ids, position }]. */
export function shown(conversation) {
  const children = {};
  for (const node of Object.values(conversation.nodes)) (children[node.parent] ??= []).push(node.id);
  const path = [];
  let parent = ROOT;
  while (children[parent]) {
    const siblings = children[parent];
    const chosen = siblings.includes(conversation.chosen[parent]) ? conversation.chosen[parent] : siblings.at(-1);
    path.push({ node: conversation.nodes[chosen], siblings, position: siblings.indexOf(chosen) });
    parent = chosen;
  }
  return path;
}

/** Shows another branch: the sibling `step` places on. */
export function turn(conversation, { node, siblings, position }, step) {
  const next = siblings[position + step];
  if (next) conversation.chosen[node.parent] = next;
}

/** The messages up to and with the node `last`, as a server wants them. */
export function messages(conversation, last) {
  const sent = [];
  for (let node = conversation.nodes[last]; node; node = conversation.nodes[node.parent]) {
    const message = wire(node);
    if (message) sent.unshift(message);
  }
  if (conversation.system.trim()) sent.unshift({ role: "system", content: conversation.system });
  return sent;
}

function wire(node) {
  if (node.role === "tool") return { role: "tool", content: node.content, tool_call_id: node.call };
  if (node.role === "user") return { role: "user", content: node.content };
  if (!node.calls?.length) return node.content ? { role: "assistant", content: node.content } : null;
  const calls = node.calls.map(({ id, name, args }) => ({ id, type: "function", function: { name, arguments: args } }));
  // Templates that keep the thoughts between calls look for them there.
  const thoughts = node.reasoning ? { reasoning_content: node.reasoning } : {};
  return { role: "assistant", content: node.content, ...thoughts, tool_calls: calls };
}

export function titleOf(conversation) {
  return conversation.title || "New chat";
}
