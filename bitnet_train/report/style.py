"""The style sheet of the HTML report: system fonts, one accent, light and dark, readable when printed."""

CSS = """
:root { --ink: #1c2330; --soft: #5d6778; --line: #e3e7ee; --page: #f6f7fa; --card: #ffffff; --s0: #9aa7ba;
  --s1: #c2571a; --code: #f3f4f8; color-scheme: light dark; }
@media (prefers-color-scheme: dark) { :root { --ink: #e7eaf0; --soft: #9aa4b5; --line: #2c3442; --page: #12161d;
  --card: #1a2029; --s0: #65748c; --s1: #f0894a; --code: #141920; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); font: 16px/1.55 system-ui, -apple-system, "Segoe UI",
  Roboto, sans-serif; }
main { max-width: 68rem; margin: 0 auto; padding: 2.5rem 1.25rem 4rem; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0; letter-spacing: -.015em; overflow-wrap: anywhere; }
header p { color: var(--soft); margin: .35rem 0 1.5rem; }
h2 { font-size: 1.2rem; margin: 0 0 .75rem; overflow-wrap: anywhere; }
h3 { font-size: 1rem; margin: 1.75rem 0 .5rem; overflow-wrap: anywhere; }
section { background: var(--card); border: 1px solid var(--line); border-radius: 12px; padding: 1.4rem 1.6rem;
  margin-top: 1.25rem; }
section > p { max-width: 46rem; margin: .4rem 0 1rem; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr)); gap: .75rem; }
.tile { background: var(--card); border: 1px solid var(--line); border-radius: 12px; padding: .9rem 1.1rem; }
.tile b { display: block; font-size: 1.6rem; font-weight: 650; letter-spacing: -.02em;
  font-variant-numeric: tabular-nums; }
.tile span { color: var(--soft); font-size: .82rem; display: block; line-height: 1.35; overflow-wrap: anywhere; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .95rem; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: .42rem .8rem; border-bottom: 1px solid var(--line); white-space: nowrap; }
th:first-child, td:first-child { text-align: left; padding-left: 0; white-space: normal; }
thead th { color: var(--soft); font-weight: 550; font-size: .85rem; }
tbody tr:last-child td { border-bottom: 0; }
figure { margin: 1.5rem 0 .25rem; } figcaption { font-weight: 600; font-size: .95rem; }
.legend { float: right; font-weight: 400; font-size: .85rem; color: var(--soft); } .key { margin-left: 1rem; }
.key::before { content: ""; display: inline-block; width: .7rem; height: .7rem; border-radius: 3px;
  margin-right: .4rem; background: var(--s0); } .key.s1::before { background: var(--s1); }
svg { width: 100%; height: auto; display: block; margin-top: .5rem; } svg text { fill: var(--ink); font-size: 12px; }
svg .name { text-anchor: end; font-weight: 550; } svg .note { fill: var(--soft); font-size: 11px; }
svg .value { font-variant-numeric: tabular-nums; } rect.s0 { fill: var(--s0); } rect.s1 { fill: var(--s1); }
svg .mark { stroke: var(--soft); stroke-dasharray: 3 3; }
details { margin: .4rem 0 .8rem; } summary { cursor: pointer; color: var(--soft); font-size: .9rem; }
.columns { display: grid; grid-template-columns: repeat(auto-fit, minmax(19rem, 1fr)); gap: .9rem; }
.column { border: 1px solid var(--line); border-top: 3px solid var(--s0); border-radius: 8px; min-width: 0; }
.column.one-bit { border-top-color: var(--s1); }
.column h4 { margin: 0; padding: .55rem .8rem 0; font-size: .9rem; }
.column h4 small { color: var(--soft); font-weight: 400; margin-left: .5rem; }
pre { margin: 0; padding: .7rem .8rem; white-space: pre-wrap; overflow-wrap: anywhere; font: inherit;
  font-size: .92rem; }
pre.code { font: .82rem/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
details pre { background: var(--code); border-radius: 8px; margin-top: .4rem; }
footer { color: var(--soft); font-size: .85rem; margin-top: 2rem; }
@media print { body { background: #fff; } section { break-inside: auto; } .column, figure { break-inside: avoid; } }
"""
