// Markdown to plain objects: the part of CommonMark and GitHub's tables that models write. It makes no element and
// knows no HTML: a tag is text. The work is linear in the text (a search that failed is not made again), and nesting
// is bounded.

const DEEPEST = 8;

/**
 * The blocks of a text: [{ type, source, apart, ... }]: as what it was written, and whether after an empty line.
 * Of a text that still `grows`, nothing at the end is shown as a mark first and as its meaning a moment later.
 */
export function blocks(text, grows = false) {
  const found = blocksOf(linesOf(text), 0);
  const last = grows && found.pop();
  return last ? [...found, ...blocksOf(linesOf(unfinished(last)), 0)] : found;
}

const linesOf = (text) => text.replaceAll("\r\n", "\n").replaceAll("\t", "    ").split("\n");

/** A line that may yet become a fence, a rule, a heading, an item or a table. */
const BEGINNING = /(?:^|\n)(?: *(?:[-*+_#>~`]{1,6}|\d{1,9}[.)]?) *|\|[^\n]*(?:\n\|?[-:| ]*)?)$/;
const OPEN_LINK = /!?\[([^[\]\n]*)\]\([^()\n]*$/;

/** The source of a last block: without what only begins there, with the ends of what is open. */
function unfinished({ type, closed, source }) {
  if (type === "table" || type === "maths") return source;
  if (type === "code") return closed ? source : source.replace(/\n *[`~]{1,2}$/, "");
  const known = source.replace(BEGINNING, "").replace(OPEN_LINK, "$1").replace(/[*~`\s]+$/, "");
  const line = known.slice(known.lastIndexOf("\n") + 1).replace(/`[^`]*`/g, "");
  const open = (mark) => line.split(mark).length % 2 === 0 && /^\S/.test(line.split(mark).at(-1));
  const mark = line.includes("`") ? "`" : ["~~", "**"].find(open);
  return known + (mark ?? (/(?:^|\s)\*[^*\s][^*]*$/.test(line) ? "*" : ""));
}

function blocksOf(lines, depth) {
  const found = [];
  for (let at = 0; at < lines.length;) {
    if (!lines[at].trim()) {
      at += 1;
      continue;
    }
    const [block, end] =
      fence(lines, at) ??
      maths(lines, at) ??
      heading(lines, at) ??
      rule(lines, at) ??
      (depth < DEEPEST ? (quote(lines, at, depth) ?? list(lines, at, depth)) : null) ??
      table(lines, at) ??
      paragraph(lines, at, depth);
    const apart = found.length > 0 && !lines[at - 1].trim();
    found.push({ ...block, apart, source: lines.slice(at, end).join("\n") });
    at = end;
  }
  return found;
}

const indentOf = (line) => line.length - line.trimStart().length;

function fence(lines, at) {
  const opened = /^( {0,3})(`{3,}|~{3,})([^`]*)$/.exec(lines[at]);
  if (!opened) return null;
  const [, indent, marks, info] = opened;
  const code = [];
  let end = at + 1;
  let closed = false;
  for (; end < lines.length && !closed; end += 1) {
    const line = lines[end].trim();
    closed = line.length >= marks.length && line === marks[0].repeat(line.length);
    if (!closed) code.push(lines[end].slice(Math.min(indent.length, indentOf(lines[end]))));
  }
  return [{ type: "code", language: info.trim().split(" ")[0], text: code.join("\n"), closed }, end];
}

const TALLEST = 100;
const MATHS = /^ {0,3}(\$\$|\\\[)/;

/** A formula on lines of its own, between $$ and $$ or \[ and \]. */
function maths(lines, at) {
  const opened = MATHS.exec(lines[at])?.[1];
  if (!opened) return null;
  const close = opened === "$$" ? "$$" : "\\]";
  let end = at;
  let rest = lines[at].trim().slice(2);
  while (!rest.includes(close) && lines[end + 1]?.trim() && end < at + TALLEST) rest = lines[(end += 1)];
  if (!rest.trimEnd().endsWith(close) || rest.indexOf(close) < rest.trimEnd().length - 2) return null;
  const tex = lines.slice(at, end + 1).join("\n").trim();
  return [{ type: "maths", text: tex.slice(2, -2).trim(), raw: tex }, end + 1];
}

function heading(lines, at) {
  const opened = /^ {0,3}(#{1,6})(?: |$)/.exec(lines[at]);
  if (!opened) return null;
  let text = lines[at].slice(opened[0].length).trim();
  const end = text.length - /#*$/.exec(text.slice(-6))[0].length;
  if (end === 0 || text[end - 1] === " ") text = text.slice(0, end).trim();
  return [{ type: "heading", level: opened[1].length, text }, at + 1];
}

function rule(lines, at) {
  const marks = lines[at].replaceAll(" ", "");
  const is = marks.length >= 3 && "-*_".includes(marks[0]) && marks === marks[0].repeat(marks.length);
  return is ? [{ type: "rule" }, at + 1] : null;
}

function quote(lines, at, depth) {
  const inner = [];
  let end = at;
  for (; end < lines.length && /^ {0,3}>/.test(lines[end]); end += 1)
    inner.push(lines[end].trimStart().replace(/^> ?/, ""));
  return end > at ? [{ type: "quote", blocks: blocksOf(inner, depth + 1) }, end] : null;
}

const ITEM = /^( *)([-*+]|\d{1,9}[.)])( +|$)/;

function list(lines, at, depth) {
  const first = ITEM.exec(lines[at]);
  if (!first) return null;
  const ordered = first[2].length > 1;
  const kind = first[2].at(-1);
  const items = [];
  let end = at;
  let loose = false;
  let apart = false;
  while (end < lines.length) {
    const opened = ITEM.exec(lines[end]);
    if (!opened || opened[2].at(-1) !== kind || opened[1].length > first[1].length + 1 || rule(lines, end)) break;
    loose ||= apart;
    const [inner, next] = item(lines, end, opened);
    items.push(itemOf(inner, depth));
    loose ||= items.at(-1).blocks.some((block) => block.apart);
    end = next;
    while (end < lines.length && !lines[end].trim()) end += 1;
    apart = end > next;
  }
  return items.length
    ? [{ type: "list", ordered, start: ordered ? parseInt(first[2], 10) : 1, loose, items }, end]
    : null;
}

/** The lines of one item, without its marker and indent, and where the next thing begins. */
function item(lines, at, [all, indent, marker, space]) {
  const width = indent.length + marker.length + (space.length > 4 ? 1 : Math.max(space.length, 1));
  const inner = [lines[at].slice(Math.min(width, all.length))];
  let end = at + 1;
  for (; end < lines.length; end += 1) {
    const line = lines[end];
    const depth = indentOf(line);
    if (!line.trim()) {
      // A blank line belongs to the item only if something indented follows.
      const next = lines.slice(end, end + 3).find((following) => following.trim());
      if (next === undefined || indentOf(next) < indent.length + 2) break;
    } else if (depth < indent.length + 2) {
      const lazy = lines[end - 1].trim() && depth <= indent.length && !ITEM.test(line) && !startsBlock(lines, end);
      if (!lazy) break;
    }
    inner.push(line.slice(Math.min(width, depth)));
  }
  return [inner, end];
}

function itemOf(inner, depth) {
  const task = /^\[([ xX])\] /.exec(inner[0]);
  if (task) inner[0] = inner[0].slice(4);
  return { done: task ? task[1] !== " " : null, blocks: blocksOf(inner, depth + 1) };
}

function cellsOf(line) {
  const cells = line
    .trim()
    .replace(/^\|/, "")
    .replace(/(?<!\\)\|$/, "")
    .split(/(?<!\\)\|/);
  return cells.map((cell) => cell.trim().replaceAll("\\|", "|"));
}

function table(lines, at) {
  if (!lines[at].includes("|") || !lines[at + 1]?.includes("-")) return null;
  const head = cellsOf(lines[at]);
  const marks = cellsOf(lines[at + 1]);
  if (head.length !== marks.length || !marks.every((mark) => /^:?-+:?$/.test(mark))) return null;
  const aligned = marks.map((m) => (m.endsWith(":") ? (m.startsWith(":") ? "center" : "right") : "left"));
  const rows = [];
  let end = at + 2;
  for (; end < lines.length && lines[end].trim() && lines[end].includes("|"); end += 1) {
    const cells = cellsOf(lines[end]);
    rows.push(head.map((_, column) => cells[column] ?? ""));
  }
  return [{ type: "table", head, aligned, rows }, end];
}

function startsBlock(lines, at) {
  return Boolean(fence1(lines[at]) || heading(lines, at) || rule(lines, at) || /^ {0,3}>/.test(lines[at]) || maths(lines, at));
}

const fence1 = (line) => /^ {0,3}(`{3,}[^`]*|~{3,}.*)$/.test(line);

function paragraph(lines, at, depth) {
  let end = at + 1;
  while (end < lines.length && lines[end].trim() && !startsBlock(lines, end) && !table(lines, end)) {
    if (depth < DEEPEST && ITEM.test(lines[end])) break;
    end += 1;
  }
  return [
    {
      type: "paragraph",
      text: lines
        .slice(at, end)
        .map((line) => line.trim())
        .join("\n"),
    },
    end,
  ];
}

const PUNCTUATION = /[!-/:-@[-`{-~]/;
const WORD = /[\p{L}\p{N}_]/u;
const SPECIAL = /[\\`*_~[!<\nh$]/g;
const URL_HERE = /https?:\/\/[^\s<>"`]+/y;

/** The spans of a text: strings and { type: code | maths | strong | em | del | link | break, ... }. */
export function spans(text, depth = 0) {
  if (depth > DEEPEST) return [text];
  const found = [];
  const failed = new Set();
  let start = 0;
  let at = 0;
  while (at < text.length) {
    SPECIAL.lastIndex = at;
    const next = SPECIAL.exec(text);
    if (!next) break;
    at = next.index;
    const [span, end] = spanAt(text, at, depth, failed) ?? [null, at + 1];
    if (span !== null) {
      if (at > start) found.push(text.slice(start, at));
      found.push(span);
      start = end;
    }
    at = end;
  }
  if (start < text.length) found.push(text.slice(start));
  return found;
}

function spanAt(text, at, depth, failed) {
  switch (text[at]) {
    case "\\":
      return formulaSpan(text, at, failed) ?? (PUNCTUATION.test(text[at + 1] ?? "") ? [text[at + 1], at + 2] : null);
    case "$":
      return formulaSpan(text, at, failed);
    case "\n":
      return [{ type: "break" }, at + 1];
    case "`":
      return codeSpan(text, at, failed);
    case "[":
      return link(text, at, depth, failed);
    case "!":
      // An image is a link to it: nothing is fetched because a model says so.
      return text[at + 1] === "[" ? link(text, at + 1, depth, failed) : null;
    case "<":
      return angled(text, at);
    case "h":
      return bareUrl(text, at);
    default:
      return emphasis(text, at, depth, failed);
  }
}

const CLOSES = { "\\(": "\\)", "\\[": "\\]", $$: "$$" };

/** As Pandoc reads $: no space inside of either, and no digit after the second, so that prices stay prices. */
function formulaSpan(text, at, failed) {
  const open = text.slice(at, at + 2);
  if (CLOSES[open]) {
    const end = failed.has(open) ? -1 : text.indexOf(CLOSES[open], at + 2);
    if (end < 0) return failed.add(open), null;
    const raw = text.slice(at, end + 2);
    return [{ type: "maths", text: raw.slice(2, -2), raw }, end + 2];
  }
  if (open[0] !== "$" || WORD.test(text[at - 1] ?? " ")) return null;
  const found = /\$(?=\S)((?:[^$\\\n]|\\[^\n]){1,300})(?<=\S)\$(?!\d)/y;
  found.lastIndex = at;
  const matched = found.exec(text);
  return matched && [{ type: "maths", text: matched[1], raw: matched[0] }, found.lastIndex];
}

function runLength(text, at) {
  let end = at;
  while (text[end] === text[at]) end += 1;
  return end - at;
}

function codeSpan(text, at, failed) {
  const length = runLength(text, at);
  const marks = "`".repeat(length);
  for (let end = at + length; !failed.has(marks);) {
    end = text.indexOf(marks, end);
    if (end < 0) failed.add(marks);
    else if (runLength(text, end) === length) {
      const code = text.slice(at + length, end).replaceAll("\n", " ");
      const padded = code.startsWith(" ") && code.endsWith(" ") && code.trim();
      return [{ type: "code", text: padded ? code.slice(1, -1) : code }, end + length];
    } else end += runLength(text, end);
  }
  return [marks, at + length];
}

function emphasis(text, at, depth, failed) {
  const mark = text[at];
  const run = runLength(text, at);
  const length = mark === "~" ? 2 : Math.min(run, 3);
  const marks = mark.repeat(length);
  const within = mark === "_" && at > 0 && WORD.test(text[at - 1]);
  const opens = /\S/.test(text[at + run] ?? "") && !within && run <= 3 && (mark !== "~" || run === 2);
  if (opens && !failed.has(marks)) {
    const end = closing(text, at + length, marks);
    if (end > 0) {
      const children = spans(text.slice(at + length, end), depth + 1);
      const type = mark === "~" ? "del" : length === 2 ? "strong" : "em";
      const span = { type, children: length === 3 ? [{ type: "strong", children }] : children };
      return [span, end + length];
    }
    failed.add(marks);
    // Fewer of the marks may yet find their end.
    if (length > 1 && mark !== "~") return [mark, at + 1];
  }
  return [text.slice(at, at + run), at + run];
}

function closing(text, from, marks) {
  for (let end = text.indexOf(marks, from); end > 0; end = text.indexOf(marks, end)) {
    const run = runLength(text, end);
    const fits = run === marks.length || (run === 3 && marks.length < 3);
    const inWord = marks[0] === "_" && WORD.test(text[end + run] ?? "");
    // The outer marks of a run of three close what was opened first.
    if (fits && end > from && /\S/.test(text[end - 1]) && !inWord) return end + run - marks.length;
    end += run;
  }
  return -1;
}

const LONGEST_LABEL = 1000;

function link(text, at, depth, failed) {
  if (failed.has("](") || (text.indexOf("](", at) < 0 && failed.add("]("))) return null;
  let open = 0;
  for (let end = at; end < Math.min(text.length, at + LONGEST_LABEL); end += 1) {
    if (text[end] === "\\") end += 1;
    else if (text[end] === "[") open += 1;
    else if (text[end] === "]" && (open -= 1) === 0) {
      const target =
        /\(\s{0,8}<?([^\s<>()]*(?:\([^\s<>()]*\)[^\s<>()]*)?)>?(?:\s{1,8}(?:"[^"]{0,300}"|'[^']{0,300}'))?\s{0,8}\)/y;
      target.lastIndex = end + 1;
      const matched = target.exec(text);
      if (!matched) return null;
      return [linked(matched[1], spans(text.slice(at + 1, end), depth + 1)), target.lastIndex];
    }
  }
  return null;
}

function angled(text, at) {
  const found = /<(?:br ?\/?|(https?:\/\/[^\s<>]{1,2000}))>/iy;
  found.lastIndex = at;
  const matched = found.exec(text);
  if (!matched) return null;
  return [matched[1] ? linked(matched[1], [matched[1]]) : { type: "break" }, found.lastIndex];
}

function bareUrl(text, at) {
  URL_HERE.lastIndex = at;
  const matched = URL_HERE.exec(text);
  if (!matched || (at > 0 && WORD.test(text[at - 1]))) return null;
  let url = matched[0].slice(0, 2000);
  while (/[.,;:!?'*_~]$/.test(url) || (url.endsWith(")") && !url.includes("("))) url = url.slice(0, -1);
  return [linked(url, [url]), at + url.length];
}

/** A link only where it leads to the web or to a mail address, never into this page; else text and target as text. */
function linked(target, children) {
  let url;
  try {
    url = new URL(target);
  } catch {
    url = null;
  }
  if (url && ["http:", "https:", "mailto:"].includes(url.protocol)) return { type: "link", href: url.href, children };
  return { type: "plain", children: [...children, ` (${target})`] };
}
