// Where the reader writes, and the bar that says how full the model's context is.
import { getJson } from "./api.js";
import { toolsOf } from "./chat.js";
import { icon } from "./dom.js";
import { messages, shown } from "./tree.js";

const COUNT_AFTER_MS = 350;

export class Composer {
  #timer = 0;
  #counting = null;

  /** `limit()` is the context of the chosen model in tokens, or null where it is not known. */
  constructor({ form, text, button, meter, label }, chat, limit) {
    Object.assign(this, { form, text, button, meter, label, chat, limit });
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      if (chat.running) chat.stop();
      else this.#send();
    });
    text.addEventListener("keydown", (event) => this.#key(event));
    text.addEventListener("input", () => this.#written());
    chat.addEventListener("path", () => this.show());
    chat.addEventListener("node", ({ detail }) => chat.current.nodes[detail.id] && this.#showUsage(detail));
  }

  #key(event) {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    if (!this.chat.running) this.#send();
  }

  #send() {
    if (!this.text.value.trim()) return;
    const content = this.text.value;
    this.text.value = "";
    this.#written();
    this.chat.send(content);
  }

  /** Puts a text into the field, as if it had been written. */
  fill(content) {
    this.text.value = content;
    this.#written();
    this.text.focus();
  }

  #written() {
    this.text.style.height = "auto";
    this.text.style.height = `${Math.min(this.text.scrollHeight, innerHeight * 0.4)}px`;
    this.show();
    clearTimeout(this.#timer);
    this.#counting?.abort();
    if (this.text.value.trim()) this.#timer = setTimeout(() => this.#count(), COUNT_AFTER_MS);
  }

  show() {
    const { running } = this.chat;
    this.button.replaceChildren(icon(running ? "stop" : "send"));
    this.button.ariaLabel = this.button.title = running ? "Stop (Esc)" : "Send (Enter)";
    this.button.disabled = !running && !this.text.value.trim();
    this.#showUsage(shown(this.chat.current).findLast(({ node }) => node.stats?.prompt)?.node);
  }

  #showUsage(node) {
    if (this.text.value.trim() && !this.chat.running) return;
    this.#showTokens((node?.stats?.prompt ?? 0) + (node?.stats?.completion ?? 0), "");
  }

  /** What the draft would make of it: the server counts, with the model's own template. */
  async #count() {
    const { current } = this.chat;
    const last = shown(current).at(-1)?.node.id;
    const asked = [...messages(current, last), { role: "user", content: this.text.value }];
    const { chat_template_kwargs } = this.chat.settings.parameters();
    this.#counting = new AbortController();
    try {
      const body = { model: this.chat.model || undefined, messages: asked, chat_template_kwargs, ...toolsOf(current) };
      const { count } = await getJson("/tokenize", { body, signal: this.#counting.signal });
      this.#showTokens(count, " with this draft");
    } catch {
      // Only a preview: sending says what is wrong.
    }
  }

  #showTokens(used, how) {
    const limit = this.limit();
    this.meter.hidden = !limit;
    if (limit) {
      this.meter.max = limit;
      this.meter.high = limit * 0.85;
      this.meter.value = Math.min(used, limit);
    }
    const share = limit ? ` of ${limit.toLocaleString("en")}` : "";
    const over = limit !== null && used >= limit;
    this.label.textContent = `${used.toLocaleString("en")}${share} tokens${how}${over ? ": no room for an answer" : ""}`;
    this.label.classList.toggle("bad", over);
  }
}
