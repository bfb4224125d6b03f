// A bar for something that runs; its room is kept when nothing does.

import { el, put } from "../lib/dom.js";
import { seconds } from "../lib/format.js";

function build(node) {
  node.replaceChildren(el("progress", { "aria-label": "Progress" }), el("span", { class: "quiet" }));
}

/** Show a job's progress, or `rest` where none runs. */
export function progress(node, job, rest = "") {
  if (node.childElementCount !== 2) build(node);
  const [bar, words] = node.children;
  bar.hidden = !job;
  if (!job) return put(words, rest);
  const { done, total, label } = job.progress ?? {};
  if (total) Object.assign(bar, { max: total, value: Math.min(done, total) });
  else bar.removeAttribute("value");
  bar.setAttribute("aria-label", job.title ?? "Progress");
  const amount = total ? `${done} of ${total}` : "";
  const left = total && done > 0 && done < total && job.seconds > 2 ? `, about ${seconds((job.seconds / done) * (total - done))} left` : "";
  return put(words, [label || (job.status === "queued" ? "waiting for its turn" : ""), amount].filter(Boolean).join(" · ") + left);
}
