// The messages of the open conversation, and where the window looks: at the newest, until the reader scrolls up.
import { h } from "./dom.js";
import { MessageView } from "./message.js";
import { shown } from "./tree.js";

const NEAR = 60;

export class Transcript {
  #views = new Map();
  #following = true;
  #top = 0;
  #frame = 0;
  #dirty = new Set();

  /** `list` holds the messages, `scroller` scrolls them, `toEnd` is the button that goes to the newest. */
  constructor({ list, scroller, toEnd, empty, announcer }, actions) {
    Object.assign(this, { list, scroller, toEnd, empty, announcer, actions });
    scroller.addEventListener("scroll", () => this.#looked());
    // A wheel turns before the window moves; text that comes between the two would take the move back.
    scroller.addEventListener("wheel", (turned) => this.#turned(turned), { passive: true });
    toEnd.addEventListener("click", () => this.follow());
  }

  #turned({ deltaY, ctrlKey }) {
    if (deltaY < 0 && !ctrlKey && this.scroller.scrollTop > 0) this.#following = false;
  }

  #looked() {
    const { scrollTop, scrollHeight, clientHeight } = this.scroller;
    const below = scrollHeight - clientHeight - scrollTop;
    if (scrollTop < this.#top && below >= 1) this.#following = false;
    else if (scrollTop > this.#top && below < NEAR) this.#following = true;
    this.#top = scrollTop;
    this.toEnd.hidden = below < NEAR;
  }

  follow() {
    this.#following = true;
    this.scroller.scrollTop = this.scroller.scrollHeight;
    this.#top = this.scroller.scrollTop;
  }

  /** Shows the conversation as it is now; messages that stay keep their elements. */
  show(conversation) {
    const changed = conversation.id !== this.conversation?.id;
    this.conversation = conversation;
    if (changed) this.#views.clear();
    const path = shown(conversation);
    const elements = path.map((entry, index) => {
      const view = this.#views.get(entry.node.id) ?? new MessageView(this.actions);
      this.#views.set(entry.node.id, view);
      view.show({ ...entry, open: openCalls(entry.node, path.slice(index + 1)) }, index === path.length - 1);
      return view.element;
    });
    let same = 0;
    while (same < elements.length && this.list.children[same] === elements[same]) same += 1;
    while (this.list.children.length > same) this.list.lastChild.remove();
    this.list.append(...elements.slice(same));
    this.empty.hidden = path.length > 0;
    if (changed || this.#following) this.follow();
  }

  /** A message has grown: it is drawn once a frame, however many tokens that frame brings. */
  grew(node) {
    this.#dirty.add(node.id);
    this.#frame ||= requestAnimationFrame(() => this.#draw());
  }

  #draw() {
    this.#frame = 0;
    for (const id of this.#dirty) {
      const view = this.#views.get(id);
      if (view?.element.isConnected) view.show(view.entry, view.last);
    }
    this.#dirty.clear();
    if (this.#following) this.follow();
    else this.#looked();
  }

  /** Read out by screen readers, once and whole: a region that changes with each token cannot be listened to. */
  announce(text) {
    this.announcer.replaceChildren(h("p", {}, text));
  }

  /** The arrows of a message that took another's place get the focus that the other's had. */
  focusBranch(id, step) {
    const arrows = this.#views.get(id)?.element.querySelectorAll(".branches button") ?? [];
    const wanted = arrows[step < 0 ? 0 : 1];
    (wanted?.disabled ? arrows[step < 0 ? 1 : 0] : wanted)?.focus();
  }

  editLast() {
    const last = shown(this.conversation).findLast(({ node }) => node.role === "user");
    if (last) this.#views.get(last.node.id).edit();
  }
}

/** The calls whose results are still to come: nothing but other results may follow them. */
function openCalls({ calls = [] }, following) {
  if (!following.every(({ node }) => node.role === "tool")) return [];
  const answered = following.map(({ node }) => node.call);
  return calls.filter(({ id }) => !answered.includes(id));
}
