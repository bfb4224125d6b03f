// Runs before the page: keeps what its policy refused, and how far its layout jumped without anybody having touched it.
window.watched = { violations: [], shift: 0, shifts: [] };
document.addEventListener("securitypolicyviolation", (event) =>
  window.watched.violations.push(`${event.violatedDirective} ${event.blockedURI} ${event.sourceFile}:${event.lineNumber}`),
);
new PerformanceObserver((list) => {
  for (const entry of list.getEntries().filter((each) => !each.hadRecentInput)) {
    window.watched.shift += entry.value;
    window.watched.shifts.push([entry.value, entry.sources.map(({ node }) => node?.id || node?.className || node?.nodeName)]);
  }
}).observe({ type: "layout-shift", buffered: true });
