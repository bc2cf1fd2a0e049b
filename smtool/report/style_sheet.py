"""CSS of the pages: light or dark like the reader's system; figures keep a white background."""

STYLE = """
:root { color-scheme: light dark; --paper: #fff; --ink: #1a1a1a; --dim: #555; --line: #ddd; --soft: #f5f5f3;
  --good: #00684b; --warn: #b34700; --link: #005a92; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #16181a; --ink: #e6e6e6; --dim: #a8a8a8; --line: #3a3d40; --soft: #222528;
    --good: #4fd0a5; --warn: #ff9a52; --link: #7cc3ef; }
}
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.55 system-ui, -apple-system, "Segoe UI", sans-serif; }
main { max-width: 66rem; margin: 0 auto; padding: 2rem 1.25rem 4rem; }
nav { max-width: 66rem; margin: 0 auto; padding: 1rem 1.25rem 0; font-size: .875rem; }
nav ol { margin: 0; padding: 0; list-style: none; display: flex; flex-wrap: wrap; gap: .2rem 1.1rem; }
nav a { color: var(--link); text-decoration: none; }
nav a:hover { text-decoration: underline; }
@media (min-width: 84rem) {
  body { display: grid; grid-template-columns: 15rem minmax(0, 1fr); }
  nav { position: sticky; top: 0; align-self: start; padding: 2.6rem 0 1rem 1.5rem; }
  nav ol { flex-direction: column; gap: .45rem; }
  main { margin: 0; }
}
h1 { font-size: 1.75rem; line-height: 1.2; margin: 0 0 .5rem; }
h2 { font-size: 1.25rem; margin: 2.5rem 0 .5rem; padding-top: 1rem; border-top: 1px solid var(--line); }
h3 { font-size: 1.05rem; margin: 0 0 .2rem; overflow-wrap: anywhere; }
p { max-width: 48rem; margin: .6rem 0; }
figure { margin: 1.2rem 0 1.8rem; }
figure svg { display: block; width: 100%; height: auto; background: #fff; color: #000; border-radius: 4px; }
figure img { max-width: 100%; height: auto; }
figure img.pixels { image-rendering: pixelated; width: 100%; }
figcaption, .note { color: var(--dim); font-size: .875rem; max-width: 48rem; }
figcaption { margin-top: .4rem; }
.note { white-space: pre-line; overflow-wrap: anywhere; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(var(--card), 1fr)); gap: 1rem; margin: 1rem 0; }
.beside { display: grid; grid-template-columns: repeat(auto-fit, minmax(24rem, 1fr)); gap: 0 1.5rem; align-items: start; }
.cards section { background: var(--soft); border-radius: 6px; padding: .9rem 1.1rem 1rem; }
.cards .note { margin: 0 0 .5rem; }
.cards ul { margin: .4rem 0 0; padding: 0; list-style: none; }
.cards li { position: relative; padding: .22rem 0 .22rem 1.5rem; font-size: .9375rem; line-height: 1.45; }
.cards li.tone-note, .tone-note strong { color: var(--dim); font-weight: 400; }
.sign { position: absolute; left: 0; width: 1.1rem; text-align: center; font-weight: 700; }
.tone-good .sign { color: var(--good); }
.tone-warn .sign { color: var(--warn); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; margin: 1rem 0 .3rem; font-variant-numeric: tabular-nums; font-size: .9375rem; }
caption { text-align: left; font-weight: 600; padding-bottom: .3rem; }
th, td { padding: .25rem .9rem .25rem 0; text-align: right; vertical-align: top; }
th { border-bottom: 1px solid var(--dim); font-weight: 600; }
td { border-bottom: 1px solid var(--line); }
th:first-child, td:first-child { text-align: left; }
dl { display: grid; grid-template-columns: max-content minmax(0, 1fr); gap: .2rem 1.5rem; margin: 1rem 0; font-size: .9375rem; }
dt { color: var(--dim); max-width: 18rem; }
dd { margin: 0; overflow-wrap: anywhere; }
pre { background: var(--soft); padding: .8rem 1rem; overflow-x: auto; font-size: .875rem; line-height: 1.5; border-radius: 4px; }
@media print { nav { display: none; } body { display: block; } figure, .cards section { break-inside: avoid; } }
"""
