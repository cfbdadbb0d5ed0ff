"""style.py: the style of the report's page: light and dark, narrow and wide, on paper. Loads nothing from anywhere."""

from __future__ import annotations

# c1 to c6 follow Okabe & Ito's palette, which people tell apart whatever their colour vision; lighter on dark.
STYLE = """
:root {
  color-scheme: light dark;
  --page: #fff; --text: #1c2128; --soft: #59636e; --rule: #d5dae0; --panel: #f5f7f9; --link: #0a57a4;
  --good: #17693a; --good-back: #e3f4e8; --bad: #a3260f; --bad-back: #fdeae5; --note: #7a5200; --note-back: #fdf3dc;
  --heat: 205 85 0; --c0: #99a1ab;
  --c1: #0a6ab0; --c2: #c94f00; --c3: #00805c; --c4: #b0488a; --c5: #b88700; --c6: #2f9fd8;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #14181d; --text: #e3e7ec; --soft: #9aa5b1; --rule: #343c46; --panel: #1c2229; --link: #7fb8f0;
    --good: #7fd8a0; --good-back: #16331f; --bad: #ff9d85; --bad-back: #43190f; --note: #f0c869; --note-back: #3a2d0e;
    --heat: 205 88 8; --c0: #6c7683;
    --c1: #5db4f0; --c2: #ff8f4a; --c3: #35cfa0; --c4: #ec9ac8; --c5: #edc24b; --c6: #a8b8ff;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; text-size-adjust: 100%; }
body {
  margin: 0 auto; padding: 2rem 1.25rem 3rem; max-width: 74rem; background: var(--page); color: var(--text);
  font: 1rem/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "DejaVu Sans", sans-serif;
}
h1 { margin: 0 0 .6rem; font-size: 1.9rem; line-height: 1.2; overflow-wrap: anywhere; }
h2 { margin: 2.8rem 0 .8rem; padding-bottom: .3rem; font-size: 1.35rem; border-bottom: 1px solid var(--rule); }
h3 { margin: 0 0 .3rem; font-size: 1.08rem; color: var(--text); }
p { margin: .4rem 0 .8rem; max-width: 48rem; overflow-wrap: anywhere; }
code { font: .87em/1.4 ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace; }
code { overflow-wrap: anywhere; }
.soft, figcaption { color: var(--soft); }
.badges { display: flex; flex-wrap: wrap; gap: .5rem; margin: 0 0 1rem; padding: 0; list-style: none; }
.badges li { padding: .12rem .7rem; border: 1px solid currentColor; border-radius: 1rem; font-weight: 600; }
.good { color: var(--good); } .bad { color: var(--bad); } .note { color: var(--note); }
.badges .good { background: var(--good-back); } .badges .bad { background: var(--bad-back); }
.badges .note { background: var(--note-back); }
.lead { font-size: 1.1rem; }
dl { display: grid; grid-template-columns: fit-content(45%) minmax(0, 1fr); gap: .2rem 1.2rem; margin: .6rem 0; }
dt { color: var(--soft); overflow-wrap: anywhere; } dd { margin: 0; overflow-wrap: anywhere; }
ul.reasons { margin: .4rem 0 1rem; padding-left: 1.3rem; max-width: 56rem; overflow-wrap: anywhere; }
.scroll { overflow-x: auto; margin: .6rem 0; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .92rem; }
th, td { padding: .3rem .75rem; text-align: left; vertical-align: baseline; border-bottom: 1px solid var(--rule); }
thead th { color: var(--soft); font-weight: 600; white-space: nowrap; border-bottom-width: 2px; }
tbody th { font-weight: 500; }
figure thead th { white-space: normal; vertical-align: bottom; }
figure tbody th:first-child, figure thead th:first-child { position: sticky; left: 0; background: var(--page); }
figure tbody th:first-child { min-width: 6.5rem; max-width: 16rem; overflow-wrap: anywhere; }
td.number, th.number { text-align: right; }
td, td code, tbody th code { white-space: nowrap; }
td.heat { background: rgb(var(--heat) / var(--shade)); print-color-adjust: exact; -webkit-print-color-adjust: exact; }
td.heat { border-left: 1px solid var(--page); border-bottom-color: var(--page); }
td code, tbody th code { font-size: .84rem; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 28rem), 1fr)); gap: 2.4rem 2.6rem; }
figure { margin: 0; min-width: 0; break-inside: avoid; }
figure.wide { grid-column: 1 / -1; }
figcaption { max-width: 56rem; margin-bottom: .5rem; font-size: .95rem; }
.chart { margin: 0 -.2rem; max-width: 40rem; }
svg { display: block; width: 100%; height: auto; font: 13px system-ui, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
svg text { fill: var(--soft); } svg text.label { fill: var(--text); }
.grid { stroke: var(--rule); stroke-width: 1; opacity: .7; } .axis { fill: none; stroke: var(--soft); }
.line { fill: none; stroke-width: 2; stroke-linejoin: round; } .bars { fill: none; stroke-width: 1.3; }
.dots { stroke-width: 4; stroke-linecap: round; opacity: .62; } .marks { stroke-width: 7; stroke-linecap: round; }
.dots.key { stroke-width: 9; opacity: 1; }
.guide .line { stroke: var(--text); stroke-width: 1.3; stroke-dasharray: 1.5 4; stroke-linecap: round; }
.c0 path { stroke: var(--c0); } .c1 path { stroke: var(--c1); } .c2 path { stroke: var(--c2); }
.c3 path { stroke: var(--c3); } .c4 path { stroke: var(--c4); } .c5 path { stroke: var(--c5); }
.c6 path { stroke: var(--c6); }
.legend { display: flex; flex-wrap: wrap; gap: .1rem 1.1rem; margin: .2rem 0 0; padding: 0; list-style: none; }
.legend li { display: flex; align-items: center; gap: .4rem; font-size: .87rem; overflow-wrap: anywhere; }
.legend svg { flex: none; width: 28px; height: 12px; }
.legend .swatch { width: 1.5rem; height: .95rem; background: rgb(var(--heat) / var(--shade)); }
.legend .swatch { border: 1px solid var(--rule); print-color-adjust: exact; -webkit-print-color-adjust: exact; }
details { margin: .6rem 0; } dd details { margin: 0; }
summary { cursor: pointer; color: var(--link); width: fit-content; }
ol.chain { margin: 1rem 0; padding: 0; list-style: none; }
ol.chain > li { position: relative; margin-left: .5rem; padding: 0 0 1.5rem 1.7rem; }
ol.chain > li { border-left: 2px solid var(--rule); }
ol.chain > li::before {
  content: ""; position: absolute; left: -.47rem; top: .38rem; width: .75rem; height: .75rem; border-radius: 50%;
  background: var(--page); border: 3px solid var(--c1);
}
ol.chain > li:last-child { border-left-color: transparent; padding-bottom: 0; }
pre { margin: .5rem 0; padding: .7rem .9rem; overflow-x: auto; background: var(--panel); border-radius: .4rem; }
footer { margin-top: 3rem; padding-top: .8rem; border-top: 1px solid var(--rule); font-size: .88rem; }
@media (max-width: 36rem) {
  body { padding: 1.1rem .85rem 2rem; } h1 { font-size: 1.45rem; } h2 { margin-top: 2.1rem; }
  svg { font-size: 17px; } th, td { padding: .3rem .4rem; font-size: .84rem; } dl { column-gap: .8rem; }
}
@media print {
  :root { color-scheme: light; } body { max-width: none; padding: 0; font-size: 10pt; } .scroll { overflow: visible; }
  ol.chain > li { break-inside: avoid; }
  details::details-content { content-visibility: visible; display: block; } h2, h3 { break-after: avoid; }
}
"""
