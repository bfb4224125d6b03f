// The playground's page: reads the state, wires the sections, and keeps what is shown fresh.

import { acceptToken, takeToken } from "./lib/api.js";
import { complain, get, put } from "./lib/dom.js";
import { hear, keepFresh, refresh, tell } from "./lib/store.js";
import * as theme from "./lib/theme.js";
import * as benchmark from "./parts/benchmark.js";
import * as both from "./parts/continue.js";
import * as cost from "./parts/cost.js";
import * as jobs from "./parts/job_list.js";
import * as layers from "./parts/layers.js";
import * as models from "./parts/model.js";
import * as recipe from "./parts/recipe.js";
import * as runs from "./parts/runs.js";

const PARTS = [theme, models, layers, cost, both, benchmark, recipe, runs, jobs];

/** Without its token the page shows a door and nothing else; a server that is silent is said above all. */
function onTrouble(error) {
  const isShut = error?.status === 401;
  document.body.classList.toggle("shut", isShut);
  get("door").hidden = !isShut;
  complain(get("silence"), isShut ? null : error);
  document.body.classList.toggle("silent", Boolean(error) && !isShut);
}

async function first() {
  try {
    await refresh();
    onTrouble(null);
  } catch (error) {
    onTrouble(error);
  }
  document.body.classList.add("begun");
}

function openDoor(event) {
  event.preventDefault();
  acceptToken(get("door-token").value);
  get("door-token").value = "";
  refresh().then(
    () => onTrouble(null),
    (error) => {
      onTrouble(error);
      complain(get("door-problem"), error);
    },
  );
}

/** The section in sight is marked in the rail. */
function watchSections() {
  const links = new Map([...document.querySelectorAll(".rail a")].map((link) => [link.hash.slice(1), link]));
  const inSight = new Set();
  const observer = new IntersectionObserver(
    (entries) => {
      for (const { target, isIntersecting } of entries) inSight[isIntersecting ? "add" : "delete"](target.id);
      const current = [...links.keys()].find((id) => inSight.has(id));
      for (const [id, link] of links) {
        if (id === current) link.setAttribute("aria-current", "true");
        else link.removeAttribute("aria-current");
      }
    },
    { rootMargin: "-25% 0px -60% 0px" },
  );
  for (const id of links.keys()) observer.observe(get(id));
}

hear("machine", (machine) => {
  const { cpu, threads, isa } = machine ?? {};
  put(get("machine"), [cpu, threads ? `${threads} threads` : "", isa].filter(Boolean).join(" · "));
});
hear("version", (version) => put(get("foot"), `bitnet_train ${version}. Everything here stays on this machine.`));

takeToken();
PARTS.forEach((part) => part.begin());
tell("model", null);
get("door-form").addEventListener("submit", openDoor);
watchSections();
await first();
keepFresh(onTrouble, () => !get("door").hidden);
