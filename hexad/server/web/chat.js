// What can be done with a conversation: ask, stop, edit, ask again, go on, branch. It knows the server and the store;
// what is on the screen hears of changes by events: "list", "path", "node" (detail: the message), "ended", "failed".
import { chatChunks } from "./api.js";
import { Clock, blank } from "./answer.js";
import { ROOT, add, merge, messages, newConversation, shown, turn } from "./tree.js";

const SAVE_EVERY_MS = 1000;
const CLOSED = { status: "incomplete", error: "The page was closed before the answer was complete." };

export class Chat extends EventTarget {
  conversations = [];
  current = newConversation();
  model = "";
  #running = new Map();

  constructor(store, settings) {
    super();
    Object.assign(this, { store, settings });
  }

  async load() {
    const stored = await this.store.all();
    for (const conversation of stored) {
      for (const node of Object.values(conversation.nodes)) {
        if (node.status === "streaming") Object.assign(node, CLOSED);
      }
    }
    // What was begun while the browser was still reading is kept, too.
    const begun = this.conversations;
    this.conversations = [...stored.filter(({ id }) => begun.every((other) => other.id !== id)), ...begun];
    begun.forEach((conversation) => this.save(conversation));
    this.#tell("list");
    this.#tell("path");
  }

  #tell(name, detail) {
    this.dispatchEvent(new CustomEvent(name, { detail }));
  }

  get running() {
    return this.#running.has(this.current.id);
  }

  open(conversation = newConversation()) {
    this.current = conversation;
    this.#tell("list");
    this.#tell("path");
  }

  /** A message of the reader: it ends what is shown. */
  send(content) {
    if (this.running) return;
    const last = shown(this.current).at(-1)?.node;
    this.#ask(add(this.current, last?.id ?? ROOT, { role: "user", content }));
  }

  edit(node, content) {
    this.stop();
    this.#ask(add(this.current, node.parent, { role: "user", content }));
  }

  /** Another answer to the same question, beside `node`. */
  again(node) {
    this.stop();
    this.#ask(this.current.nodes[node.parent]);
  }

  result(node, call, content) {
    const answered = shown(this.current)
      .filter((entry) => entry.node.role === "tool")
      .map((entry) => entry.node.call);
    const last = shown(this.current).at(-1).node;
    const added = add(this.current, last.id, { role: "tool", content, call: call.id });
    const more = node.calls.some(({ id }) => id !== call.id && !answered.includes(id));
    if (more) this.#changed();
    else this.#ask(added);
  }

  /** Lets the model go on with an answer that was cut. */
  resume(node) {
    if (this.running) return;
    const more = { add_generation_prompt: false, continue_final_message: true };
    Object.assign(node, { status: "streaming", error: "", finish: "" });
    this.#run(node, messages(this.current, node.id), more);
  }

  turn(entry, step) {
    turn(this.current, entry, step);
    this.#changed();
  }

  stop() {
    this.#running.get(this.current.id)?.aborter.abort();
  }

  #ask(question) {
    if (!this.current.title) this.current.title = question.content.trim().split("\n")[0].slice(0, 60);
    if (!this.conversations.includes(this.current)) this.conversations.push(this.current);
    const node = add(this.current, question.id, blank(this.model));
    this.#run(node, messages(this.current, question.id));
  }

  async #run(node, sent, more = {}) {
    const conversation = this.current;
    const aborter = new AbortController();
    this.#running.set(conversation.id, { conversation, node, aborter });
    node.changed = Date.now();
    this.#changed(conversation);
    try {
      await this.#stream(conversation, node, sent, more, aborter.signal);
      node.status = "done";
    } catch (error) {
      if (error.name === "AbortError") node.status = "stopped";
      else Object.assign(node, { status: "incomplete", error: error.message });
    }
    // A second answer may have been asked for while the first was being stopped.
    if (this.#running.get(conversation.id)?.aborter === aborter) this.#running.delete(conversation.id);
    node.changed = Date.now();
    this.#changed(conversation);
    this.#tell("ended", node);
  }

  async #stream(conversation, node, sent, more, signal) {
    const clock = new Clock(node.stats.completion ?? 0);
    const body = {
      model: node.model || undefined,
      messages: sent,
      ...this.settings.parameters(),
      ...toolsOf(conversation),
      ...more,
      stream: true,
      stream_options: { include_usage: true, continuous_usage_stats: true },
    };
    let saved = performance.now();
    for await (const chunk of chatChunks(body, signal)) {
      clock.take(node, chunk);
      node.changed = Date.now();
      this.#tell("node", node);
      if (performance.now() - saved > SAVE_EVERY_MS) {
        saved = performance.now();
        this.save(conversation);
      }
    }
    if (!node.finish) throw new Error("The server ended the answer without saying why.");
  }

  #changed(conversation = this.current) {
    conversation.updated = Date.now();
    this.save(conversation);
    this.#tell("list");
    if (conversation === this.current) this.#tell("path");
  }

  /** Only what is listed is kept: an empty new chat is not. */
  save(conversation = this.current) {
    if (!this.conversations.includes(conversation)) return;
    this.store.save(conversation).catch((error) => this.#tell("failed", error.message));
  }

  /** `change`: a title, a system prompt or tools. */
  adjust(conversation, change) {
    Object.assign(conversation, change, { edited: Date.now() });
    this.save(conversation);
    this.#tell("list");
  }

  remove(conversation) {
    this.#forget(conversation);
    this.store.remove(conversation.id).catch((error) => this.#tell("failed", error.message));
  }

  #forget(conversation) {
    this.#running.get(conversation.id)?.aborter.abort();
    this.conversations = this.conversations.filter((kept) => kept !== conversation);
    if (conversation === this.current) this.open();
    else this.#tell("list");
  }

  /** What another tab has saved; with nothing, what it has deleted. */
  hear(id, theirs) {
    const ours = this.conversations.find((conversation) => conversation.id === id);
    const [title, updated] = [ours?.title, ours?.updated];
    if (!theirs) return ours && this.#forget(ours);
    if (ours) merge(ours, theirs);
    else this.conversations.push(theirs);
    if (title !== theirs.title || updated !== theirs.updated) this.#tell("list");
    if (ours === this.current) this.#tell("path");
  }

  /** The page is being closed: what has come of the answers is kept. */
  leave() {
    for (const { node } of this.#running.values()) Object.assign(node, CLOSED, { changed: Date.now() });
    this.store.leave([...this.#running.values()].map(({ conversation }) => conversation));
  }

  import(conversations) {
    this.conversations.push(...conversations);
    for (const conversation of conversations) this.save(conversation);
    if (conversations.length) this.open(conversations[0]);
  }
}

/** Raises Error when the tools are not what OpenAI's `tools` are. */
export function toolsOf(conversation) {
  if (!conversation.tools.trim()) return {};
  let tools;
  try {
    tools = JSON.parse(conversation.tools);
  } catch (error) {
    throw new Error(`The tools of this chat are not JSON (${error.message}); change them in the settings.`);
  }
  return { tools };
}
