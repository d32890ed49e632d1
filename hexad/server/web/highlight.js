// Light colouring of code by one pass of one pattern: comments, strings, numbers and words that many languages reserve.

const HASH = new Set([
  "python",
  "py",
  "bash",
  "sh",
  "shell",
  "zsh",
  "yaml",
  "yml",
  "toml",
  "ruby",
  "rb",
  "r",
  "makefile",
  "dockerfile",
  "ini",
  "conf",
]);
const PLAIN = new Set(["", "text", "txt", "plain", "plaintext", "output", "console", "diff", "markdown", "md"]);
const LONGEST = 30_000;

const WORDS = new Set(
  (
    "abstract and as assert async await auto begin bool boolean break case catch char class const constexpr " +
    "continue crate def default defer del delete do double dyn elif else elsif end enum except export extends " +
    "extern final finally float fn for from func function go goto if impl implements import in include inline " +
    "instanceof int interface is lambda let long loop match mod module mut namespace new not of operator or " +
    "override package pass private protected pub public raise ref return self short signed sizeof static " +
    "string struct super switch template then this throw trait try type typedef typename typeof union unsigned " +
    "unsafe use using var virtual void volatile where while with yield None True False null nil true false " +
    "undefined select insert update create table into values join left right inner outer on group by order " +
    "limit having distinct set echo fi done esac local"
  ).split(" "),
);

const STRING = /"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'|`(?:[^`\\]|\\.)*`/.source;
const NUMBER = /\b(?:0x[\da-fA-F_]+|\d[\d_]*(?:\.\d+)?(?:[eE][+-]?\d+)?)\b/.source;
const WORD = /[A-Za-z_$][\w$]*/.source;

function pattern(language) {
  const comment = HASH.has(language)
    ? /#[^\n]*/
    : language === "sql" || language === "lua"
      ? /--[^\n]*/
      : language === "html" || language === "xml"
        ? /<!--[^]*?(?:-->|$)/
        : /\/\/[^\n]*|\/\*[^]*?(?:\*\/|$)/;
  const long = language.startsWith("py") ? `"""[^]*?(?:"""|$)|'''[^]*?(?:'''|$)|` : "";
  return new RegExp(`(${comment.source})|(${long}${STRING})|(${NUMBER})|(${WORD})`, "g");
}

/** [[kind or null, text]]: kinds are comment, string, number, keyword and call. */
export function highlighted(code, language) {
  const name = language.toLowerCase();
  if (PLAIN.has(name) || code.length > LONGEST) return [[null, code]];
  const parts = [];
  let start = 0;
  for (const found of code.matchAll(pattern(name))) {
    const kind = found[1] ? "comment" : found[2] ? "string" : found[3] ? "number" : kindOfWord(found, code, name);
    if (!kind) continue;
    if (found.index > start) parts.push([null, code.slice(start, found.index)]);
    parts.push([kind, found[0]]);
    start = found.index + found[0].length;
  }
  if (start < code.length) parts.push([null, code.slice(start)]);
  return parts;
}

const NAMES_IN_PYTHON = new Set([
  "default",
  "set",
  "new",
  "this",
  "type",
  "switch",
  "void",
  "char",
  "long",
  "table",
  "values",
  "func",
  "auto",
  "use",
]);

function kindOfWord(found, code, language) {
  const word = found[0];
  const name = language.startsWith("py") && NAMES_IN_PYTHON.has(word);
  if (!name && WORDS.has(language === "sql" ? word.toLowerCase() : word)) return "keyword";
  return code[found.index + word.length] === "(" ? "call" : null;
}
