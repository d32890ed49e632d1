// Before anything is drawn: the theme that was chosen last. (A classic script, so that no page flashes in the other.)
try {
  document.documentElement.dataset.theme = localStorage.getItem("hexad.theme") ?? "auto";
} catch {
  document.documentElement.dataset.theme = "auto";
}
