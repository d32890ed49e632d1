// Before anything is drawn: the theme that was chosen last. (A classic script, so that no page flashes in the other.)
document.documentElement.dataset.theme = localStorage.getItem("hexad.theme") ?? "auto";
