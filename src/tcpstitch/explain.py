"""The statistics as a page of text for people."""

from __future__ import annotations

from typing import List, Mapping

from .limits import Limits
from .statistics import Holder, Statistics


def _size(count: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"


def _number(count: int) -> str:
    return f"{count:,}".replace(",", " ")


def _counts(counts: Mapping[str, int]) -> str:
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{kind} {_number(count)}" for kind, count in ordered) or "none"


def explain(now: float, limits: Limits, statistics: Statistics, holders: List[Holder]) -> str:
    """Who holds what, what bounds it, and what was given up for that: one line per subject."""
    s = statistics
    lines = [
        f"time         {now:.0f} (capture time, about), {_number(s.packets)} packets, {_number(s.segments)} segments",
        f"memory       about {_size(s.memory_bytes)} held, {_size(s.memory_bound)} allowed by the limits; "
        f"the fullest limit is at {s.pressure:.0%}",
        f"pages        {_number(s.pages_used)} used of {_number(limits.max_buffered_pages_total)} "
        f"({_number(limits.max_buffered_pages_per_connection)} per connection) of {limits.page_size} bytes; "
        f"{_number(s.pages_free)} free, most used {_number(s.pages_peak)}",
        f"connections  {_number(s.connections)} open, of these {_number(s.connections_embryonic)} half open; "
        f"{_number(s.connections_lingering)} over or closing; of {_number(limits.max_connections)}, "
        f"most {_number(s.connections_peak)}",
        f"fragments    {_number(s.fragments)} incomplete datagrams of {_number(limits.max_fragments)}, "
        f"{_size(s.fragment_bytes)} of {_size(limits.max_fragment_bytes)}",
        f"delivered    {_number(s.bytes)} bytes",
        f"missing      {_number(s.missing_bytes)} bytes in {_number(s.gaps)} gaps: {_counts(s.gaps_by_reason)}",
        f"completed    {_number(s.connections_completed)} connections: {_counts(s.completions_by_reason)}",
        f"given up     {_counts(s.evictions_by_kind)}; {_number(s.kept_bytes_dropped)} kept bytes dropped",
        f"anomalies    {_counts(s.anomalies)}",
        f"undecoded    {_counts(s.decode_errors)}",
    ]
    for place, holder in enumerate(holders, 1):
        lines.append(
            f"holder {place:<5} {holder.flow}: {_number(holder.pages)} pages, {_number(holder.bytes)} bytes, "
            f"last packet {holder.age:.0f} s ago"
        )
    return "\n".join(lines)
