// Runs before the first paint, so it is no module: a page that was dark never flashes light.
try {
  const chosen = JSON.parse(localStorage.getItem("playground.theme"));
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
} catch {
  // No storage: the system's choice holds.
}
