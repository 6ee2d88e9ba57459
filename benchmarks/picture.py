"""Line charts as SVG, in panels side by side, with a logarithmic vertical axis; the other one too where asked."""

from __future__ import annotations

import math
from html import escape
from typing import Dict, List, NamedTuple, Tuple

WIDTH, HEIGHT, MARGIN, GAP = 420, 260, 56, 40
COLOURS = ("#0b6e4f", "#c1121f", "#e07a5f", "#3a4ea1", "#8aa1d6", "#6b7280")


class Panel(NamedTuple):
    """One chart; `lines` from a label to points (x, y), y above 0."""

    title: str
    x_label: str
    y_label: str
    lines: Dict[str, List[Tuple[float, float]]]
    decades_across: bool = False  # the horizontal axis is logarithmic too


def _text(x: float, y: float, text: str, anchor: str = "middle", size: int = 12, extra: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" {extra}>{escape(text)}</text>'


def _panel(panel: Panel, left: float, top: float, decades: Tuple[int, int]) -> List[str]:
    low, high = decades
    most = max(x for points in panel.lines.values() for x, _ in points)
    least = min(x for points in panel.lines.values() for x, _ in points) if panel.decades_across else 0
    inner_width, inner_height = WIDTH - MARGIN, HEIGHT - MARGIN

    def place(x: float, y: float) -> Tuple[float, float]:
        share = (math.log10(max(y, 10**low)) - low) / (high - low)
        across = math.log(x / least) / math.log(most / least) if panel.decades_across else x / most
        return left + MARGIN + inner_width * across, top + 24 + inner_height * (1 - share)

    parts = [_text(left + MARGIN + inner_width / 2, top + 12, panel.title, size=14)]
    for decade in range(low, high + 1):
        x, y = place(least, 10**decade)
        parts.append(f'<path d="M{x:.1f} {y:.1f}h{inner_width}" stroke="#d1d5db"/>')
        parts.append(_text(x - 6, y + 4, f"{10**decade:g}", "end"))
    bottom = top + 24 + inner_height
    parts.append(_text(left + MARGIN, bottom + 16, f"{least:,.0f}", "start"))
    parts.append(_text(left + WIDTH, bottom + 16, f"{most:,.0f} {panel.x_label}", "end"))
    turned = f'transform="rotate(-90 {left + 12:.1f} {top + 24 + inner_height / 2:.1f})"'
    parts.append(_text(left + 12, top + 24 + inner_height / 2, panel.y_label, extra=turned))
    for colour, points in zip(COLOURS, panel.lines.values()):
        path = " ".join("{:.1f},{:.1f}".format(*place(x, y)) for x, y in points)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
    return parts


def draw(panels: List[Panel], columns: int = 2) -> str:
    """The SVG of all panels on common decades, with one legend. Lines have their colour by position."""
    values = [y for panel in panels for points in panel.lines.values() for _, y in points if y > 0]
    decades = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    rows = -(-len(panels) // columns)
    labels = list(dict.fromkeys(label for panel in panels for label in panel.lines))
    width = columns * (WIDTH + GAP) + GAP
    height = rows * (HEIGHT + GAP) + 20 * len(labels) + GAP
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
    ]
    for place, panel in enumerate(panels):
        row, column = divmod(place, columns)
        parts += _panel(panel, GAP / 2 + column * (WIDTH + GAP), 20 + row * (HEIGHT + GAP), decades)
    for place, (colour, label) in enumerate(zip(COLOURS, labels)):
        y = rows * (HEIGHT + GAP) + 30 + 20 * place
        parts.append(f'<path d="M{MARGIN} {y - 4}h28" stroke="{colour}" stroke-width="3"/>')
        parts.append(_text(MARGIN + 36, y, label, "start"))
    return "\n".join([*parts, "</svg>", ""])
