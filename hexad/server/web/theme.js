// Before anything is drawn: the theme that was chosen last, and what to say where the page's other scripts do not come.
// (A classic script, so that no page flashes in the other theme.)
try {
  document.documentElement.dataset.theme = localStorage.getItem("hexad.theme") ?? "auto";
} catch {
  document.documentElement.dataset.theme = "auto";
}

const MISSING =
  "A part of this page could not be loaded; reload it. If the server is behind a proxy that changes the Host header, " +
  "name this page's address in --allowed-origins.";

addEventListener(
  "error",
  ({ target }) => {
    if (target.localName !== "script") return;
    const said = Object.assign(document.createElement("p"), { className: "error", textContent: MISSING });
    document.body.replaceChildren(said);
  },
  true,
);
