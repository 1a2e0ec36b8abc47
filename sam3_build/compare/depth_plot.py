"""Takes blocks with their errors, returns an SVG of error by depth, in light and dark. Standard library only."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from sam3_build.compare.depth import Depth

ROW, CHARACTER, PLOT, TOLD = 20, 7.3, 420, 110  # pixels: a line, a letter, the widths of the plot and of the values

STYLE = """
svg { font: 12px ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace; background: var(--paper);
  --paper: #ffffff; --ink: #1b1f24; --faint: #d5dae1; --line: #3b6fb6; --bad: #b3261e }
@media (prefers-color-scheme: dark) {
  svg { --paper: #14171b; --ink: #e4e8ee; --faint: #383f48; --line: #82b1f2; --bad: #ff8a80 }
}
text { fill: var(--ink) } .title { font-weight: bold } .grid { stroke: var(--faint) }
.gate { stroke: var(--bad); stroke-dasharray: 4 3 } .error { stroke: var(--line); stroke-width: 2 }
circle { fill: var(--line) } .parts circle { fill: var(--bad) } .parts .error { stroke: var(--bad) }
.parts text { fill: var(--bad); font-weight: bold }
""".strip()


def svg(title: str, found: Sequence[Depth], parts: Depth | None) -> str:
    """Return the picture: a bar per block from the input down, its error in units of the gate, on a log scale.

    `parts` is drawn in bold and in another colour. Infinite errors stand at the edge.
    """
    finite = [depth.error for depth in found if 0 < depth.error < math.inf]
    low = math.floor(math.log10(min([*finite, 0.1])))
    high = math.ceil(math.log10(max([*finite, 10.0])))
    left = max(len(depth.node) for depth in found) * CHARACTER + 16
    top, bottom = 3 * ROW, (3 + len(found)) * ROW
    width = max(left + PLOT + TOLD, len(title) * CHARACTER + 16)

    def x(error: float) -> float:
        share = (math.log10(error) - low) / (high - low) if 0 < error < math.inf else float(error > 0)
        return round(left + PLOT * min(1.0, max(0.0, share)), 1)

    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" viewBox="0 0 {width:g} {bottom}"',
        f' width="{width:g}" height="{bottom}">',
        f"<title>{escape(title)}</title><style>{STYLE}</style>",
        f'<text class="title" x="8" y="{ROW}">{escape(title)}</text>',
    ]
    for power in range(low, high + 1):
        at = x(10.0**power)
        kind, label = ("gate", "gate") if power == 0 else ("grid", f"{10.0**power:g}")
        lines.append(f'<line class="{kind}" x1="{at}" y1="{top - 10}" x2="{at}" y2="{bottom - 6}"/>')
        lines.append(f'<text x="{at}" y="{top - 16}" text-anchor="middle">{label}</text>')
    for number, depth in enumerate(found):
        across, down = x(depth.error), top + number * ROW
        lines.append(
            f'<g class="{"parts" if depth is parts else "block"}"><title>{escape(depth.block)}</title>'
            f'<text x="8" y="{down + 4}">{escape(depth.node)}</text>'
            f'<line class="error" x1="{left:g}" y1="{down}" x2="{across}" y2="{down}"/>'
            f'<circle cx="{across}" cy="{down}" r="3.5"/>'
            f'<text x="{left + PLOT + 12:g}" y="{down + 4}">{depth.told}</text></g>'
        )
    return "\n".join([*lines, "</svg>"]) + "\n"
