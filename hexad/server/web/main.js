// Puts the parts together: the panels, the model, the theme, the keys of the keyboard.
import { apiKey, getJson } from "./api.js";
import { Chat } from "./chat.js";
import { Composer } from "./composer.js";
import { h, icon, iconButton } from "./dom.js";
import { EnginePage } from "./engine.js";
import { Settings } from "./settings.js";
import { remembered, tab } from "./shelf.js";
import { Sidebar } from "./sidebar.js";
import { Store, exported, imported } from "./store.js";
import { suggestionsFor } from "./suggestions.js";
import { Transcript } from "./transcript.js";
import { titleOf } from "./tree.js";

const $ = (id) => document.getElementById(id);
const narrow = matchMedia("(max-width: 820px)");
const CHOSEN_MODEL = "hexad.model";
const OPEN = "hexad.open";
const TOAST_MS = 6000;

const store = new Store();
const settings = new Settings();
const chat = new Chat(store, settings);
let models = [];

// ---- conversations

const transcript = new Transcript(
  { list: $("messages"), scroller: $("scroller"), toEnd: $("to-end"), empty: $("empty"), announcer: $("announcer") },
  {
    edit: (node, text) => chat.edit(node, text),
    again: (node) => chat.again(node),
    resume: (node) => chat.resume(node),
    result: (node, call, text) => chat.result(node, call, text),
    turn: (entry, step) => {
      chat.turn(entry, step);
      transcript.focusBranch(chat.current.chosen[entry.node.parent], step);
    },
  },
);
const limit = () => models.find(({ id }) => id === chat.model)?.max_model_len ?? null;
const composer = new Composer(
  { form: $("composer"), text: $("text"), button: $("send"), meter: $("context"), label: $("context-label") },
  chat,
  limit,
);
new Sidebar({ list: $("conversations"), search: $("search") }, chat, () => {
  closeDrawers();
  goTo("chat");
  $("text").focus();
});

chat.addEventListener("path", () => {
  transcript.show(chat.current);
  // Setting a value moves the cursor, so only another conversation's is set.
  if ($("system").value !== chat.current.system) $("system").value = chat.current.system;
  if ($("chat-tools").value !== chat.current.tools) $("chat-tools").value = chat.current.tools;
  $("title").textContent = titleOf(chat.current);
  document.title = chat.current.title ? `${chat.current.title} \u00b7 Hexad` : "Hexad";
});
chat.addEventListener("node", ({ detail }) => transcript.grew(detail));
chat.addEventListener("failed", ({ detail }) => toast(detail));
chat.addEventListener("ended", ({ detail: { status, content } }) => {
  if (status === "done") transcript.announce(content);
  if (status === "done" && !models.length) loadModels();
  // A phone would open its keyboard over the answer.
  if (document.activeElement === document.body && !narrow.matches) $("text").focus();
});

function newChat() {
  chat.open();
  closeDrawers();
  goTo("chat");
  $("text").focus();
}

function toast(message) {
  $("toast").textContent = message;
  $("toast").hidden = false;
  clearTimeout(toast.timer);
  toast.timer = setTimeout(() => ($("toast").hidden = true), TOAST_MS);
}

// ---- panels

/** On a wide window a panel stands beside the chat; on a narrow one it lies over it. */
function showPanel(id, visible) {
  const other = id === "sidebar" ? "settings" : "sidebar";
  if (visible && narrow.matches) $(other).hidden = true;
  $(id).hidden = !visible;
  $("shade").hidden = !narrow.matches || ($("sidebar").hidden && $("settings").hidden);
  // What lies under a panel cannot be reached by Tab either.
  document.querySelector("main").inert = !$("shade").hidden;
  if (visible && narrow.matches) $(id).querySelector("button").focus();
  menuButton.ariaExpanded = String(!$("sidebar").hidden);
  settingsButton.ariaExpanded = String(!$("settings").hidden);
}

function closeDrawers() {
  if (!narrow.matches) return;
  showPanel("sidebar", false);
  showPanel("settings", false);
}

const menuButton = iconButton("menu", "Conversations", () => showPanel("sidebar", $("sidebar").hidden));
const settingsButton = iconButton("sliders", "Settings", () => showPanel("settings", $("settings").hidden));
const themeButton = iconButton("auto", "", nextTheme);
$("menu").replaceWith(menuButton);
$("tools").replaceWith(themeButton, settingsButton);
$("close-settings").replaceWith(
  iconButton("close", "Close settings", () => {
    showPanel("settings", false);
    settingsButton.focus();
  }),
);
$("to-end").append(icon("down"));
$("new").prepend(icon("plus"));
$("new").addEventListener("click", newChat);
$("shade").addEventListener("click", closeDrawers);
narrow.addEventListener("change", () => showPanel("sidebar", !narrow.matches));

const THEMES = {
  auto: ["light", "auto", "as the system"],
  light: ["dark", "sun", "light"],
  dark: ["auto", "moon", "dark"],
};

const theme = () => THEMES[document.documentElement.dataset.theme] ?? THEMES.auto;

function nextTheme() {
  const [next] = theme();
  document.documentElement.dataset.theme = next;
  remembered.set("hexad.theme", next);
  showTheme();
}

function showTheme() {
  const [, picture, name] = theme();
  themeButton.replaceChildren(icon(picture));
  themeButton.ariaLabel = themeButton.title = `Theme: ${name}`;
}

// ---- settings

for (const [id, name] of [
  ["system", "system"],
  ["chat-tools", "tools"],
]) {
  $(id).addEventListener("input", () => (chat.current[name] = $(id).value));
  $(id).addEventListener("change", () => chat.adjust(chat.current, { [name]: $(id).value }));
}

$("sampling").addEventListener("submit", (event) => event.preventDefault());

$("export").addEventListener("click", () => {
  const link = h("a", {
    href: URL.createObjectURL(exported(chat.conversations)),
    download: "hexad-conversations.json",
  });
  link.click();
  URL.revokeObjectURL(link.href);
});
$("import").addEventListener("click", () => $("file").click());
$("file").addEventListener("change", async () => {
  const [file] = $("file").files;
  if (!file) return;
  try {
    const found = await imported(file);
    chat.import(found);
    toast(`${found.length} conversation${found.length === 1 ? "" : "s"} imported`);
  } catch (error) {
    toast(error.message);
  }
  $("file").value = "";
});

// ---- the API key

const KEPT = "It is kept in this tab until you close it.";

function askKey(why) {
  $("key-why").textContent = `${why} ${KEPT}`;
  $("key").value = apiKey.get();
  if (!$("key-dialog").open) $("key-dialog").showModal();
}

addEventListener("unauthorized", () =>
  askKey(apiKey.get() ? "The server does not take this key." : "This server wants an API key."),
);
$("change-key").addEventListener("click", () => askKey("For a server that wants one."));
$("key").addEventListener("keydown", (event) => {
  if (event.key !== "Enter") return;
  event.preventDefault();
  $("save-key").click();
});
$("key-dialog").addEventListener("close", () => {
  if ($("key-dialog").returnValue !== "save") return;
  apiKey.set($("key").value.trim());
  loadModels();
});

// ---- models

async function loadModels() {
  try {
    models = (await getJson("/v1/models")).data;
  } catch (error) {
    showUnreached(error.status === 401 ? "This server wants an API key." : error.message);
    return;
  }
  const wanted = chat.model || remembered.get(CHOSEN_MODEL);
  chat.model = (models.find(({ id }) => id === wanted) ?? models[0])?.id ?? "";
  $("model").replaceChildren(...models.map(({ id }) => h("option", { value: id }, id)));
  $("model").value = chat.model;
  showPage();
  showSuggestions();
  composer.show();
}

$("model").addEventListener("change", () => {
  chat.model = $("model").value;
  remembered.set(CHOSEN_MODEL, chat.model);
  showPage();
  showSuggestions();
  composer.show();
});

function showUnreached(why) {
  const retry = h("button", { type: "button", class: "plain", onclick: loadModels }, "Try again");
  $("suggestions").replaceChildren(h("p", { class: "error", role: "alert" }, why, " ", retry));
}

function showSuggestions() {
  $("suggestions").replaceChildren(
    ...suggestionsFor(chat.model).map((text) => h("button", { type: "button", onclick: () => chat.send(text) }, text)),
  );
}

// ---- pages

const engine = new EnginePage($("engine-view"), () => (models.length > 1 ? chat.model : undefined));

/** At once: what is to have the focus must be seen. */
function goTo(page) {
  if (location.hash !== `#${page}`) location.hash = page;
  showPage();
}

function showPage() {
  const onEngine = location.hash === "#engine";
  $("chat-view").hidden = onEngine;
  $("engine-view").hidden = !onEngine;
  $("to-chat").ariaCurrent = onEngine ? null : "page";
  $("to-engine").ariaCurrent = onEngine ? "page" : null;
  engine.show(onEngine);
}

addEventListener("hashchange", showPage);

// ---- the keyboard

/** In screens: a reader who writes may look back. */
const SCROLLING = { PageUp: -0.7, PageDown: 0.7 };

addEventListener("keydown", (event) => {
  const command = event.ctrlKey || event.metaKey;
  if (command && !event.shiftKey && event.key.toLowerCase() === "k") {
    showPanel("sidebar", true);
    $("search").select();
  } else if (command && event.shiftKey && event.key.toLowerCase() === "o") newChat();
  else if (event.key === "Escape" && !$("key-dialog").open) escape();
  else if (event.key === "ArrowUp" && event.target === $("text") && !$("text").value && !chat.running)
    transcript.editLast();
  else if (event.target === $("text") && SCROLLING[event.key])
    $("scroller").scrollBy(0, SCROLLING[event.key] * $("scroller").clientHeight);
  else return;
  event.preventDefault();
});

function escape() {
  if (chat.running) chat.stop();
  else if (narrow.matches) closeDrawers();
  else if (!$("settings").hidden) showPanel("settings", false);
  $("text").focus();
}

addEventListener("pagehide", () => chat.leave());

// ---- and go

showPanel("sidebar", !narrow.matches);
showTheme();
settings.show($("sampling"));
showPage();
transcript.show(chat.current);
composer.show();
loadModels();
try {
  await store.open((id, theirs) => chat.hear(id, theirs));
  const open = tab.get(OPEN);
  await chat.load();
  const before = chat.conversations.find(({ id }) => id === open);
  if (before && !chat.conversations.includes(chat.current)) chat.open(before);
  const noteOpen = () => tab.set(OPEN, chat.current.id);
  chat.addEventListener("path", noteOpen);
  noteOpen();
} catch (error) {
  toast(`This browser keeps no conversations here (${error.message}): they last until the page is closed.`);
}
