// Markdown's plain objects to elements. While an answer grows, the blocks that did not change keep their elements.
import { copyButton, h } from "./dom.js";
import { highlighted } from "./highlight.js";
import { blocks, spans } from "./markdown.js";
import { formula } from "./maths.js";

/** Arabic and Hebrew are written from the right; each block goes the way of its first letter. */
const EITHER_WAY = { dir: "auto" };

/** In signs: most of a phone's width. */
const LONG = 24;

const written = new WeakMap();

/** Shows `text` in `container`, touching only what changed since the last call. `grows`: more of it is to come. */
export function showMarkdown(container, text, grows = false) {
  const last = written.get(container);
  if (last?.text === text && last.grows === grows) return;
  const [before, after] = [last?.shown ?? [], blocks(text, grows)];
  let same = 0;
  while (same < after.length && before[same]?.source === after[same].source && before[same].type === after[same].type)
    same += 1;
  if (same < before.length && same < after.length && grown(container.children[same], before[same], after[same]))
    same += 1;
  while (container.children.length > same) container.lastChild.remove();
  container.append(...after.slice(same).map(blockElement));
  written.set(container, { text, grows, shown: after });
}

/** A code block that grows line by line keeps its element, so that its copy button and its scrolling stay. */
function grown(element, before, after) {
  if (before.type !== "code" || after.type !== "code" || before.language !== after.language) return false;
  element.querySelector("code").replaceChildren(...codeParts(after));
  return true;
}

function blockElement(block) {
  switch (block.type) {
    case "code":
      return codeElement(block);
    case "heading":
      // The chat's title is h1.
      return h(`h${Math.min(block.level + 1, 6)}`, { class: `level${block.level}`, ...EITHER_WAY }, inlineParts(block.text));
    case "maths":
      return h("div", { class: "maths", dir: "ltr", tabindex: "0" }, formula(block.text, true) ?? h("code", {}, block.raw));
    case "rule":
      return h("hr");
    case "quote":
      return h("blockquote", EITHER_WAY, block.blocks.map(blockElement));
    case "list":
      return listElement(block);
    case "table":
      return tableElement(block);
    default:
      return h("p", EITHER_WAY, inlineParts(block.text));
  }
}

function codeElement(block) {
  const code = h("code", {}, codeParts(block));
  const bar = h(
    "div",
    { class: "codebar" },
    h("span", {}, block.language || "code"),
    copyButton("Copy code", () => code.textContent),
  );
  return h("div", { class: "code", dir: "ltr" }, bar, h("pre", { tabindex: "0" }, code));
}

function codeParts(block) {
  return highlighted(block.text, block.language).map(([kind, text]) =>
    kind ? h("span", { class: `hl-${kind}` }, text) : text,
  );
}

function listElement(block) {
  const items = block.items.map(({ done, blocks: inner }) => {
    const box =
      done === null
        ? null
        : h("input", { type: "checkbox", disabled: true, checked: done, "aria-label": done ? "done" : "to do" });
    const tight = !block.loose && inner[0]?.type === "paragraph";
    const parts = tight
      ? [...inlineParts(inner[0].text), ...inner.slice(1).map(blockElement)]
      : inner.map(blockElement);
    return h("li", { class: box && "task" }, box, parts);
  });
  return block.ordered ? h("ol", { start: block.start, ...EITHER_WAY }, items) : h("ul", EITHER_WAY, items);
}

function tableElement({ head, aligned, rows }) {
  const cells = (tag, row) => row.map((cell, column) => h(tag, { class: aligned[column] }, inlineParts(cell)));
  const body = rows.map((row) => h("tr", {}, cells("td", row)));
  const table = h("table", EITHER_WAY, h("thead", {}, h("tr", {}, cells("th", head))), h("tbody", {}, body));
  return h("div", { class: "table", tabindex: "0" }, table);
}

/** A formula is never broken, so a long one scrolls. */
function inlineFormula({ text, raw }) {
  const drawn = formula(text, false);
  return drawn?.textContent.length > LONG ? h("span", { class: "formula" }, drawn) : (drawn ?? raw);
}

const inlineParts = (text) => spans(text).flatMap(spanParts);

function spanParts(span) {
  if (typeof span === "string") return [span];
  switch (span.type) {
    case "code":
      return [h("code", {}, span.text)];
    case "maths":
      return [inlineFormula(span)];
    case "break":
      return [h("br")];
    case "plain":
      return span.children.flatMap(spanParts);
    case "link": {
      const about = { href: span.href, title: span.href, target: "_blank", rel: "noopener noreferrer nofollow" };
      return [h("a", about, span.children.flatMap(spanParts))];
    }
    default:
      return [h(span.type, {}, span.children.flatMap(spanParts))];
  }
}
