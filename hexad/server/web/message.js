// One message on the screen. What a button does is told to `actions`; it knows no server and no storage.
import { copyButton, h, icon, iconButton } from "./dom.js";
import { probabilityView } from "./probabilities.js";
import { showMarkdown } from "./render.js";

/**
 * `actions`: { edit(node, text), again(node), resume(node), turn(entry, step), result(node, call, text) }.
 * `show(entry, last)` brings the element up to date; `last`: nothing follows the message.
 */
export class MessageView {
  constructor(actions) {
    this.actions = actions;
    this.body = h("div", { class: "body" });
    this.foot = h("div", { class: "foot" });
    this.element = h("article", {}, this.body, this.foot);
    this.probable = false;
    this.parts = null;
  }

  show(entry, last) {
    this.entry = entry;
    this.last = last;
    const { node, position, siblings, open } = entry;
    // Most messages stay as they are while others come: their elements are left alone.
    const state = [node.status, node.changed, position, siblings.length, open, last, this.probable, this.editing];
    const seen = JSON.stringify(state);
    if (seen === this.seen && node.status !== "streaming") return;
    this.seen = seen;
    this.element.className = `message ${node.role}`;
    this.element.dataset.status = node.status || "done";
    this.element.ariaBusy = node.status === "streaming";
    if (node.role === "assistant") this.#answer(entry);
    else this.#said(node);
    if (!this.editing) this.foot.replaceChildren(...this.#footParts(node));
  }

  #said(node) {
    if (this.editing) return;
    this.body.replaceChildren(
      node.role === "tool" ? h("pre", {}, node.content) : h("div", { class: "bubble", dir: "auto" }, node.content),
    );
  }

  #answer(entry) {
    const { node } = entry;
    if (!this.parts) this.#makeParts();
    const { thoughts, thoughtsText, content, calls, tokens, notice } = this.parts;
    thoughts.hidden = !node.reasoning;
    if (node.reasoning) {
      thoughts.firstChild.replaceChildren(thinkingLabel(node));
      if (thoughts.open) showMarkdown(thoughtsText, node.reasoning, node.status === "streaming" && !node.content);
    }
    content.hidden = this.probable;
    tokens.hidden = !this.probable;
    if (this.probable) tokens.replaceChildren(probabilityView(node.tokens));
    else showMarkdown(content, node.content, node.status === "streaming");
    const waiting = node.status === "streaming" && !node.content && !node.reasoning && !node.calls.length;
    content.classList.toggle("waiting", waiting);
    const seen = JSON.stringify([node.calls, node.status, entry.open]);
    if (calls.dataset.seen !== seen) this.#showCalls(calls, node);
    calls.dataset.seen = seen;
    notice.replaceChildren(...this.#noticeParts(node));
  }

  #makeParts() {
    const thoughtsText = h("div", { class: "markdown" });
    const thoughts = h("details", { class: "thoughts" }, h("summary"), thoughtsText);
    thoughts.addEventListener("toggle", () => thoughts.open && showMarkdown(thoughtsText, this.entry.node.reasoning));
    const content = h("div", { class: "markdown content" });
    const [calls, tokens, notice] = [h("div", { class: "calls" }), h("div"), h("div", { class: "notice" })];
    this.parts = { thoughts, thoughtsText, content, calls, tokens, notice };
    this.body.replaceChildren(thoughts, content, tokens, calls, notice);
  }

  #showCalls(box, node) {
    box.replaceChildren(
      ...node.calls.map((call) => {
        const summary = h("summary", {}, icon("tool"), h("span", {}, call.name || "tool"));
        const details = h(
          "details",
          { class: "call", open: true },
          summary,
          h("pre", { tabindex: "0" }, pretty(call.args)),
        );
        if (this.entry.open.includes(call) && node.status === "done") details.append(this.#resultForm(node, call));
        return details;
      }),
    );
  }

  /** Nobody runs tools here: the reader may play the tool. */
  #resultForm(node, call) {
    const text = h("textarea", {
      rows: 2,
      "aria-label": `Result of ${call.name}`,
      placeholder: "What the tool answers",
    });
    const send = () => text.value.trim() && this.actions.result(node, call, text.value);
    return h(
      "div",
      { class: "result" },
      text,
      h("button", { type: "button", class: "plain", onclick: send }, "Send result"),
    );
  }

  #noticeParts(node) {
    const retry = h("button", { type: "button", class: "plain", onclick: () => this.actions.again(node) }, "Try again");
    const resumable = this.last && node.content && !node.calls.length;
    const resume =
      resumable &&
      h("button", { type: "button", class: "plain", onclick: () => this.actions.resume(node) }, "Continue");
    if (node.status === "incomplete") {
      const said = h(
        "p",
        { class: "error", role: "alert" },
        h("strong", {}, node.content ? "Incomplete. " : "No answer. "),
        node.error,
      );
      return [said, retry, resume].filter(Boolean);
    }
    if (node.status === "stopped") return [h("p", {}, "Stopped."), resume].filter(Boolean);
    if (node.status === "done" && node.finish === "length") {
      return [h("p", {}, "The limit of tokens ended this answer."), resume].filter(Boolean);
    }
    if (node.status === "done" && !node.content && !node.calls.length)
      return [h("p", {}, "The model ended its answer without a word."), retry];
    return [];
  }

  #footParts(node) {
    if (node.status === "streaming") return [h("span", { class: "stats" }, statsOf(node))];
    const parts = [this.#branches(), node.content && copyButton("Copy message", () => node.content)];
    if (node.role === "user") parts.push(iconButton("edit", "Edit message", () => this.edit()));
    if (node.role === "assistant") {
      parts.push(iconButton("again", "Answer again", () => this.actions.again(node)));
      if (node.tokens?.length) parts.push(this.#probabilityToggle());
      parts.push(h("span", { class: "stats" }, statsOf(node)));
    }
    return parts.filter(Boolean);
  }

  #branches() {
    const { siblings, position } = this.entry;
    if (siblings.length < 2) return null;
    const [back, on] = [position === 0, position === siblings.length - 1];
    return h(
      "span",
      { class: "branches" },
      iconButton("left", "Earlier version", () => this.actions.turn(this.entry, -1), { disabled: back }),
      h("span", {}, `${position + 1}/${siblings.length}`),
      iconButton("right", "Later version", () => this.actions.turn(this.entry, 1), { disabled: on }),
    );
  }

  #probabilityToggle() {
    const toggle = () => {
      this.probable = !this.probable;
      this.show(this.entry, this.last);
      this.foot.querySelector("[aria-pressed]").focus();
    };
    return iconButton("bars", "Token probabilities", toggle, { "aria-pressed": String(this.probable) });
  }

  /** Turns the message into a form; the old one stays as a branch. */
  edit() {
    const text = h("textarea", { value: this.entry.node.content, dir: "auto", "aria-label": "Edit message" });
    const done = () => {
      this.editing = false;
      this.show(this.entry, this.last);
    };
    const send = () => {
      if (!text.value.trim()) return;
      done();
      this.actions.edit(this.entry.node, text.value);
    };
    text.addEventListener("keydown", (event) => {
      if (event.key === "Escape") done();
      else if (event.key === "Enter" && !event.shiftKey && !event.isComposing) send();
      else return;
      event.preventDefault();
      event.stopPropagation();
    });
    this.editing = true;
    this.seen = null;
    const buttons = h(
      "div",
      { class: "buttons" },
      h("button", { type: "button", class: "plain", onclick: done }, "Cancel"),
      h("button", { type: "button", class: "primary", onclick: send }, "Send"),
    );
    this.body.replaceChildren(h("div", { class: "editing" }, text, buttons));
    this.foot.replaceChildren();
    text.rows = Math.min(12, text.value.split("\n").length + 1);
    text.focus();
  }
}

function thinkingLabel(node) {
  if (node.status === "streaming" && !node.content && !node.calls.length) return "Thinking\u2026";
  return node.stats.thinking ? `Thought for ${node.stats.thinking.toFixed(1)} s` : "Thoughts";
}

function statsOf({ stats = {}, model }) {
  const parts = [];
  if (stats.completion)
    parts.push(`${stats.completion.toLocaleString("en")} token${stats.completion === 1 ? "" : "s"}`);
  if (stats.rate)
    parts.push(`${stats.rate >= 100 ? Math.round(stats.rate).toLocaleString("en") : stats.rate.toFixed(1)} tokens/s`);
  if (stats.first !== undefined)
    parts.push(
      `first after ${stats.first < 1 ? `${Math.round(stats.first * 1000)} ms` : `${stats.first.toFixed(1)} s`}`,
    );
  if (model) parts.push(model);
  return parts.join(" \u00b7 ");
}

function pretty(args) {
  try {
    return JSON.stringify(JSON.parse(args), null, 2);
  } catch {
    return args;
  }
}
