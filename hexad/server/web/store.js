// Conversations in the browser's IndexedDB, and as files. Nothing of them goes to the server but what is asked.
import { merge, newId } from "./tree.js";

const LARGEST_FILE = 50 * 2 ** 20;

function promised(request) {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}

export class Store {
  #db = null;
  #tabs = null;
  /** The transactions that write, with the conversation of each. */
  #writing = new Map();

  /**
   * `changed(id, conversation)` hears what other tabs have saved, or with undefined what they have deleted.
   * Raises what the browser says where it keeps nothing (a private window, a full disk).
   */
  async open(changed) {
    const opening = indexedDB.open("hexad", 1);
    opening.onupgradeneeded = () => opening.result.createObjectStore("conversations", { keyPath: "id" });
    this.#db = await promised(opening);
    this.#tabs = new BroadcastChannel("hexad");
    this.#tabs.onmessage = async ({ data: id }) => changed(id, await promised(this.#objects("readonly").get(id)));
  }

  #objects(mode) {
    return this.#db.transaction("conversations", mode).objectStore("conversations");
  }

  all() {
    return this.#db ? promised(this.#objects("readonly").getAll()) : Promise.resolve([]);
  }

  /** Another tab may have saved the same conversation: what it added is kept, and comes into `conversation`. */
  async save(conversation) {
    if (!this.#db) return;
    const objects = this.#objects("readwrite");
    this.#writing.set(objects.transaction, conversation);
    try {
      const saved = await promised(objects.get(conversation.id));
      if (saved) merge(conversation, saved);
      await promised(objects.put(conversation));
      this.#tabs.postMessage(conversation.id);
    } catch (error) {
      // Removed meanwhile, or left.
      if (error.name === "AbortError") return;
      if (error.name === "QuotaExceededError") {
        throw new Error("The browser's storage is full: export conversations you want to keep, then delete some.");
      }
      throw error;
    } finally {
      this.#writing.delete(objects.transaction);
    }
  }

  /** Ends the writing of the conversations of which `which` holds; returns them. */
  #abandon(which) {
    const abandoned = [...this.#writing].filter(([, conversation]) => which(conversation));
    for (const [transaction] of abandoned) {
      this.#writing.delete(transaction);
      transaction.abort();
    }
    return abandoned.map(([, conversation]) => conversation);
  }

  /** For a page that is being left: `conversations`, and all that is not yet written, at once and without a look. */
  leave(conversations) {
    // What has still to be read keeps all behind it from being written.
    const unsaved = new Set([...conversations, ...this.#abandon(() => true)]);
    if (!this.#db || !unsaved.size) return;
    const objects = this.#objects("readwrite");
    unsaved.forEach((conversation) => objects.put(conversation));
    objects.transaction.commit();
    unsaved.forEach(({ id }) => this.#tabs.postMessage(id));
  }

  async remove(id) {
    if (!this.#db) return;
    this.#abandon((conversation) => conversation.id === id);
    const objects = this.#objects("readwrite");
    const removed = promised(objects.delete(id));
    // At once: the page may be closed before it hears of it.
    objects.transaction.commit();
    await removed;
    this.#tabs.postMessage(id);
  }
}

export function exported(conversations) {
  const text = JSON.stringify({ format: "hexad-conversations", version: 1, conversations }, null, 1);
  return new Blob([text], { type: "application/json" });
}

/** The conversations of a file, all checked: it may come from anyone. Raises Error with what is wrong with it. */
export async function imported(file) {
  if (file.size > LARGEST_FILE) {
    throw new Error(
      `The file has ${Math.round(file.size / 2 ** 20)} MB; at most ${LARGEST_FILE / 2 ** 20} MB can be imported.`,
    );
  }
  let found;
  try {
    found = JSON.parse(await file.text());
  } catch {
    throw new Error("The file is not JSON; choose one that this page has exported.");
  }
  if (found?.format !== "hexad-conversations" || found.version !== 1 || !Array.isArray(found.conversations)) {
    throw new Error("The file holds no conversations of Hexad; choose one that this page has exported.");
  }
  return found.conversations.map(checked);
}

const ENDED = ["done", "stopped", "incomplete"];
const text = (value) => (typeof value === "string" ? value : "");
const number = (value) => (Number.isFinite(value) ? value : 0);
const list = (value) => (Array.isArray(value) ? value : []);

function checked(given, index) {
  const nodes = {};
  for (const node of Object.values(given?.nodes ?? {})) {
    const known = ["user", "assistant", "tool"].includes(node?.role);
    // A name of every object's is no message's: __proto__, constructor.
    if (!known || !text(node.id) || node.id in {} || typeof node.parent !== "string") {
      throw new Error(`Conversation ${index + 1} of the file holds a message that is none; nothing was imported.`);
    }
    nodes[node.id] = checkedNode(node);
  }
  return {
    id: newId(),
    title: text(given?.title).slice(0, 200),
    created: number(given?.created),
    updated: number(given?.updated),
    system: text(given?.system),
    tools: text(given?.tools),
    nodes,
    chosen: Object.fromEntries(Object.entries(given?.chosen ?? {}).filter(([, id]) => typeof id === "string")),
  };
}

function checkedNode(node) {
  const plain = { id: node.id, parent: node.parent, role: node.role, created: number(node.created) };
  for (const name of ["content", "reasoning", "status", "error", "finish", "model", "call"])
    plain[name] = text(node[name]);
  if (plain.role === "assistant" && !ENDED.includes(plain.status)) {
    plain.status = "incomplete";
    plain.error ||= "The file does not hold the end of this answer.";
  }
  plain.calls = list(node.calls).map((call) => ({
    id: text(call?.id),
    name: text(call?.name),
    args: text(call?.args),
  }));
  const stats = Object.entries(node.stats ?? {}).filter(([, value]) => Number.isFinite(value));
  plain.stats = Object.fromEntries(stats);
  plain.tokens = list(node.tokens).map((token) => ({
    ...checkedToken(token),
    top: list(token?.top).map(checkedToken),
  }));
  return plain;
}

const checkedToken = (token) => ({ text: text(token?.text), logprob: number(token?.logprob) });
