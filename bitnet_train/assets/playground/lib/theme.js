// Light, dark, or as the system has it.

import { get } from "./dom.js";
import * as kept from "./kept.js";

const CHOICES = ["auto", "light", "dark"];
const KEY = "playground.theme";

function show(theme) {
  if (theme === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  get("theme-now").textContent = theme;
}

export function begin() {
  let theme = kept.read(KEY, "auto", "localStorage");
  show(theme);
  get("theme").addEventListener("click", () => {
    theme = CHOICES[(CHOICES.indexOf(theme) + 1) % CHOICES.length];
    kept.write(KEY, theme, "localStorage");
    show(theme);
  });
}
