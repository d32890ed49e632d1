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

/**
 * Takes into `ours` what another tab has made of the same conversation. Messages are only ever added, so no tab loses
 * one; of a message, of the title and of the prompt the later change counts. Each tab shows its own branch.
 */
export function merge(ours, theirs) {
  for (const node of Object.values(theirs.nodes)) {
    const mine = (ours.nodes[node.id] ??= node);
    if ((node.changed ?? 0) > (mine.changed ?? 0)) Object.assign(mine, node);
  }
  ours.chosen = { ...theirs.chosen, ...ours.chosen };
  ours.updated = Math.max(ours.updated, theirs.updated);
  if ((theirs.edited ?? 0) <= (ours.edited ?? 0)) return;
  const { title, system, tools, edited } = theirs;
  Object.assign(ours, { title, system, tools, edited });
}

/** What is shown, from the first message to the last: [{ node, siblings: ids, position }]. */
export function shown(conversation) {
  const children = Map.groupBy(Object.values(conversation.nodes), (node) => node.parent);
  const path = [];
  for (let parent = ROOT; children.has(parent); parent = path.at(-1).node.id) {
    const siblings = children.get(parent).map(({ id }) => id);
    const chosen = siblings.indexOf(conversation.chosen[parent]);
    const position = chosen < 0 ? siblings.length - 1 : chosen;
    path.push({ node: conversation.nodes[siblings[position]], siblings, position });
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
