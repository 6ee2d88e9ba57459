"""What the benchmarks write into the documentation: sections between markers, and pictures."""

from __future__ import annotations

import os

DOCS = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "docs")
PAGE = os.path.join(DOCS, "benchmarks.md")


def write_section(name: str, text: str, page: str = PAGE) -> None:
    """Replace what stands between `<!-- begin NAME -->` and `<!-- end NAME -->`. Raises ValueError without them."""
    begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
    with open(page, encoding="utf-8") as file:
        content = file.read()
    before, found, rest = content.partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise ValueError(f"{page} has no section {name}: put {begin} and {end} there")
    body = text.strip("\n")  # a first line may be indented
    with open(page, "w", encoding="utf-8") as file:
        file.write(f"{before}{begin}\n{body}\n{end}{after}")


def write_picture(name: str, svg: str) -> str:
    """Write docs/benchmarks/NAME.svg; the line of Markdown that shows it."""
    folder = os.path.join(DOCS, "benchmarks")
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, name + ".svg"), "w", encoding="utf-8") as file:
        file.write(svg)
    return f"![{name}](benchmarks/{name}.svg)"
