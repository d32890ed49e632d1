// The list of conversations: find, open, rename, delete. It tells `chat` what to do and knows no storage.
import { h, iconButton } from "./dom.js";
import { titleOf } from "./tree.js";

const DAY_MS = 86_400_000;

export class Sidebar {
  /** `onopen` is called after a conversation was chosen. */
  constructor({ list, search }, chat, onopen) {
    Object.assign(this, { list, search, chat, onopen });
    chat.addEventListener("list", () => this.show());
    search.addEventListener("input", () => this.show());
    search.addEventListener("keydown", (event) => this.#searchKey(event));
    list.addEventListener("keydown", (event) => this.#listKey(event));
  }

  show() {
    if (this.list.querySelector("input")) return;
    const wanted = this.search.value.trim().toLowerCase();
    const found = this.chat.conversations.filter((conversation) => !wanted || mentions(conversation, wanted));
    found.sort((a, b) => b.updated - a.updated);
    // A row that is pressed while an answer ends must still be there when it is let go.
    const about = (c) => [c.id, titleOf(c), ageOf(c.updated), c === this.chat.current];
    const seen = JSON.stringify([wanted, found.map(about)]);
    if (seen === this.seen) return;
    this.seen = seen;
    const rows = [];
    let heading = "";
    for (const conversation of found) {
      const age = ageOf(conversation.updated);
      if (age !== heading) rows.push(h("li", { class: "age" }, (heading = age)));
      rows.push(this.#row(conversation));
    }
    if (!rows.length) rows.push(h("li", { class: "none" }, wanted ? "Nothing found" : "No conversations yet"));
    const focused = this.list.contains(document.activeElement)
      ? document.activeElement.closest("li")?.dataset.id
      : null;
    this.list.replaceChildren(...rows);
    if (focused) this.list.querySelector(`[data-id="${focused}"] .open`)?.focus();
  }

  #row(conversation) {
    const open = h(
      "button",
      { type: "button", class: "open", dir: "auto", onclick: () => this.#open(conversation) },
      titleOf(conversation),
    );
    if (conversation === this.chat.current) open.setAttribute("aria-current", "true");
    const row = h(
      "li",
      { "data-id": conversation.id },
      open,
      iconButton("edit", `Rename ${titleOf(conversation)}`, () => this.#rename(row, conversation)),
      iconButton("trash", `Delete ${titleOf(conversation)}`, () => this.#remove(conversation)),
    );
    return row;
  }

  #open(conversation) {
    this.chat.open(conversation);
    this.onopen();
  }

  #rename(row, conversation) {
    const field = h("input", { value: titleOf(conversation), "aria-label": "Title", maxlength: 200 });
    let over = false;
    const done = (keep) => {
      // Removing the field takes its focus, which ends it again.
      if (over) return;
      over = true;
      row.remove();
      if (keep) this.chat.adjust(conversation, { title: field.value.trim() || conversation.title });
      else this.show();
    };
    field.addEventListener("keydown", (event) => {
      event.stopPropagation();
      if (event.key === "Enter") done(true);
      if (event.key === "Escape") done(false);
    });
    field.addEventListener("blur", () => done(true));
    this.seen = null;
    row.replaceChildren(field);
    field.select();
  }

  #remove(conversation) {
    if (confirm(`Delete \u201c${titleOf(conversation)}\u201d? It cannot be brought back.`))
      this.chat.remove(conversation);
  }

  #searchKey(event) {
    const first = this.list.querySelector(".open");
    if (event.key === "ArrowDown") first?.focus();
    else if (event.key === "Enter") first?.click();
    else if (event.key === "Escape" && this.search.value) {
      this.search.value = "";
      this.show();
      event.stopPropagation();
    } else return;
    event.preventDefault();
  }

  #listKey(event) {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!step || !event.target.matches(".open")) return;
    const all = [...this.list.querySelectorAll(".open")];
    (all[all.indexOf(event.target) + step] ?? this.search).focus();
    event.preventDefault();
  }
}

function mentions(conversation, wanted) {
  const texts = [conversation.title, ...Object.values(conversation.nodes).map((node) => node.content)];
  return texts.some((text) => text.toLowerCase().includes(wanted));
}

function ageOf(time) {
  const midnight = new Date().setHours(0, 0, 0, 0);
  if (time >= midnight) return "Today";
  if (time >= midnight - DAY_MS) return "Yesterday";
  return time >= midnight - 7 * DAY_MS ? "This week" : "Earlier";
}
