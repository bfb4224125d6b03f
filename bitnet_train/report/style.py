"""The style sheets of reports: system fonts, one accent, light and dark, readable when printed."""

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
.scroll { overflow-x: auto; } :focus-visible { outline: 2px solid var(--s1); outline-offset: 2px; }
table { border-collapse: collapse; width: 100%; font-size: .95rem; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: .42rem .8rem; border-bottom: 1px solid var(--line); white-space: nowrap; }
th:first-child, td:first-child { text-align: left; padding-left: 0; white-space: normal; }
tbody th { font-weight: 400; }
thead th { color: var(--soft); font-weight: 550; font-size: .85rem; }
tbody tr:last-child > * { border-bottom: 0; }
figure { margin: 1.5rem 0 .25rem; } figcaption { font-weight: 600; font-size: .95rem; }
.legend { float: right; font-weight: 400; font-size: .85rem; color: var(--soft); } .key { margin-left: 1rem; }
.key::before { content: ""; display: inline-block; width: .7rem; height: .7rem; border-radius: 3px;
  margin-right: .4rem; background: var(--s0); } .key.s1::before { background: var(--s1); }
svg { width: 100%; height: auto; display: block; margin-top: .5rem; } svg text { fill: var(--ink); font-size: 12px; }
svg .name { text-anchor: end; font-weight: 550; } svg .note { fill: var(--soft); font-size: 11px; }
svg .value { font-variant-numeric: tabular-nums; } rect.s0 { fill: var(--s0); } rect.s1 { fill: var(--s1); }
circle.s0 { fill: var(--s0); } circle.s1 { fill: var(--s1); }
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

RUN_CSS = """
:root { --c0: #7d8aa0; --c1: #c2571a; --c2: #2b6cb0; --c3: #2f855a; --c4: #8a4fb0; --c5: #b83280; --c6: #0f7f86;
  --c7: #7a6413; --good: #1d7044; --busy: #1f5fa8; --bad: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --c0: #8793a8; --c1: #f0894a; --c2: #6cabf0; --c3: #5cc48d; --c4: #c795ea;
  --c5: #f08fc0; --c6: #4cc7c7; --c7: #d3b94f; --good: #6fd19b; --busy: #86bbf5; --bad: #ff9a90; } }
main { max-width: 84rem; }
header p { margin-bottom: .6rem; overflow-wrap: anywhere; }
.status { color: var(--ink); } .status b { display: inline-block; border: 1.5px solid; border-radius: 99px;
  padding: .05rem .7rem; margin-right: .5rem; font-size: .85rem; }
.status.good b { color: var(--good); } .status.busy b { color: var(--busy); } .status.bad b { color: var(--bad); }
nav { display: flex; flex-wrap: wrap; gap: .3rem 1.1rem; margin: 0 0 1.5rem; font-size: .92rem; }
nav a { color: var(--ink); text-decoration: underline; text-decoration-color: var(--s0); text-underline-offset: .25em;
  padding: .15rem 0; } nav a:hover { text-decoration-color: var(--s1); }
.grid { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 30rem), 1fr)); gap: .5rem 2rem;
  align-items: start; }
.grid > figure { min-width: 0; margin-top: 1rem; }
figcaption small { display: block; color: var(--soft); font-weight: 400; font-size: .82rem; }
figure.plot figcaption { display: flex; flex-wrap: wrap; justify-content: space-between; gap: .1rem 1rem; }
figure.plot .legend { float: none; display: flex; flex-wrap: wrap; align-items: baseline; gap: 0 1rem;
  min-height: 24px; }
figure.plot .key { margin: 0; } .key.c0::before { background: var(--c0); } .key.c1::before { background: var(--c1); }
.key.c2::before { background: var(--c2); } .key.c3::before { background: var(--c3); }
.key.c4::before { background: var(--c4); } .key.c5::before { background: var(--c5); }
.key.c6::before { background: var(--c6); } .key.c7::before { background: var(--c7); }
button { font: inherit; font-size: .85rem; color: var(--soft); background: none; border: 0; padding: 0 .1rem;
  min-height: 24px; cursor: pointer; } button:hover { color: var(--ink); }
button[aria-pressed="false"] { text-decoration: line-through; } button[aria-pressed="false"]::before { opacity: .25; }
button.reset { color: var(--ink); border: 1px solid var(--line); border-radius: 99px; padding: 0 .7rem; }
output { font-variant-numeric: tabular-nums; color: var(--ink); }
.canvas { min-height: 205px; } .canvas svg path { fill: none; stroke-width: 1.6; }
.canvas svg line { stroke: var(--line); } .canvas svg text { fill: var(--soft); }
path.c0 { stroke: var(--c0); } path.c1 { stroke: var(--c1); } path.c2 { stroke: var(--c2); }
path.c3 { stroke: var(--c3); } path.c4 { stroke: var(--c4); } path.c5 { stroke: var(--c5); }
path.c6 { stroke: var(--c6); } path.c7 { stroke: var(--c7); } circle.c0 { fill: var(--c0); }
circle.c1 { fill: var(--c1); } circle.c2 { fill: var(--c2); } circle.c3 { fill: var(--c3); }
circle.c4 { fill: var(--c4); } circle.c5 { fill: var(--c5); } circle.c6 { fill: var(--c6); }
circle.c7 { fill: var(--c7); } rect.c1 { fill: var(--c1); }
.words td { text-align: left; white-space: normal; overflow-wrap: anywhere; min-width: 6rem; vertical-align: top; }
.words th { text-align: left; vertical-align: top; }
.unseen { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap; }
.hint { display: none; color: var(--soft); font-size: .9rem; } .scripted .hint { display: block; }
figure.plot small { display: inline; }
.heat table { font-size: .8rem; } .heat th, .heat td { padding: .18rem .5rem; border: 1px solid var(--card); }
.heat td { text-align: right; } .heat th:first-child { white-space: nowrap; padding-left: 0; }
.h1 { background: color-mix(in srgb, var(--c1) 5%, var(--card)); }
.h2 { background: color-mix(in srgb, var(--c1) 10%, var(--card)); }
.h3 { background: color-mix(in srgb, var(--c1) 15%, var(--card)); }
.h4 { background: color-mix(in srgb, var(--c1) 20%, var(--card)); }
.h5 { background: color-mix(in srgb, var(--c1) 25%, var(--card)); }
.h6 { background: color-mix(in srgb, var(--c1) 31%, var(--card)); }
.h7 { background: color-mix(in srgb, var(--c1) 37%, var(--card)); }
.h8 { background: color-mix(in srgb, var(--c1) 43%, var(--card)); }
.h9 { background: color-mix(in srgb, var(--c1) 50%, var(--card)); }
.small { display: grid; grid-template-columns: repeat(auto-fill, minmax(9.5rem, 1fr)); gap: .9rem 1.2rem;
  margin-top: .6rem; }
.small span { font-size: .85rem; color: var(--soft); } .small svg { margin-top: .15rem; }
.scroll > table:not(.words) { max-width: 54rem; } .scroll > figure { max-width: 46rem; }
section > .scroll + .scroll { margin-top: 1rem; }
ul { margin: .4rem 0; padding-left: 1.2rem; overflow-wrap: anywhere; }
@media (max-width: 40rem) { main { padding: 1.25rem .75rem 3rem; } section { padding: 1rem .9rem; }
  h1 { font-size: 1.5rem; } .tile b { font-size: 1.35rem; } .tiles { grid-template-columns: repeat(2, minmax(0, 1fr)); }
  .scroll > figure > svg { min-width: 34rem; } .columns { grid-template-columns: minmax(0, 1fr); }
  .legend { float: none; display: block; } .key { margin: 0 1rem 0 0; } th, td { padding: .38rem .5rem; }
  .scroll > table:not(.words) th:first-child { min-width: 8.5rem; } .heat th, .heat td { padding: .18rem .3rem; }
  figure.heat .scroll > table:not(.words) th:first-child { min-width: 0; } thead th { white-space: normal; }
  .small { grid-template-columns: repeat(2, minmax(0, 1fr)); }
  table.words thead { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
  table.words, .words tbody, .words tr, .words th, .words td { display: block; }
  .words tr { border-bottom: 1px solid var(--line); padding: .5rem 0; }
  .words th, .words td { border: 0; padding: .1rem 0; } .words tbody th { font-weight: 600; overflow-wrap: anywhere; }
  .words td::before { content: attr(data-column) ": "; color: var(--soft); } .words td:empty { display: none; } }
"""
