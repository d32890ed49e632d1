// An answer as its tokens, shaded by how sure the model was; the alternatives appear on hover or with the arrow keys.
import { h } from "./dom.js";

const LEVELS = [0.9, 0.6, 0.3, 0.1];

export function probabilityView(tokens) {
  const card = h("div", { class: "card", role: "status", hidden: true });
  const spans = tokens.map((token) => h("span", { class: `token p${levelOf(token.logprob)}` }, token.text));
  const text = h(
    "div",
    { class: "tokens", tabindex: "0", "aria-label": "Tokens; the arrow keys move between them" },
    spans,
  );
  const view = h("div", { class: "probabilities" }, text, card);
  let current = -1;

  function show(index) {
    spans[current]?.classList.remove("current");
    current = index;
    card.hidden = !spans[index];
    if (card.hidden) return;
    spans[index].classList.add("current");
    card.replaceChildren(...cardParts(tokens[index]));
    const place = spans[index].getClientRects()[0] ?? spans[index].getBoundingClientRect();
    const around = view.getBoundingClientRect();
    const left = Math.min(place.left - around.left, around.width - card.offsetWidth);
    card.style.left = `${Math.max(0, left)}px`;
    card.style.top = `${place.bottom - around.top + 6}px`;
  }

  text.addEventListener("mouseover", (event) => {
    const index = spans.indexOf(event.target);
    if (index >= 0) show(index);
  });
  text.addEventListener("mouseleave", () => show(-1));
  text.addEventListener("blur", () => show(-1));
  text.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    show(Math.max(0, Math.min(tokens.length - 1, current + step)));
  });
  return view;
}

const levelOf = (logprob) => LEVELS.filter((least) => Math.exp(logprob) < least).length;

function cardParts(token) {
  const others = token.top.some((other) => other.text === token.text) ? token.top : [...token.top, token];
  return others.map((other) => {
    const share = Math.exp(other.logprob);
    const bar = h("meter", { min: 0, max: 1, value: share, "aria-hidden": "true" });
    bar.setAttribute("value", share);
    const row = h("div", { class: other.text === token.text ? "row taken" : "row" });
    row.append(h("code", {}, visible(other.text)), bar, h("span", {}, percent(share)));
    return row;
  });
}

const percent = (share) => (share >= 0.0005 ? `${(100 * share).toFixed(1)} %` : "< 0.1 %");
const visible = (text) => text.replaceAll(" ", "\u00b7").replaceAll("\n", "\u21b5");
