"""How late after its acknowledgement does data come, in captures whose tap reorders packets?

    python benchmarks/grace.py CAPTURE ...
    python benchmarks/grace.py --peak CAPTURE ...

For each direction of each connection: bytes that the receiver had confirmed before they were captured, for the first
time. Prints, per capture that has such bytes, their number and how long after the acknowledgement they came; then the
delays of all captures together. `Timeouts.acknowledged` has to be longer than these. Bytes that were acknowledged and
never came are counted beside them: those are what the grace is for.
"""

from __future__ import annotations

import argparse
import sys
from bisect import bisect_right
from typing import Any, Dict, List, Tuple

from tcpstitch import (
    Assembler,
    Flow,
    Limits,
    PacketDecoder,
    Segment,
    Stream,
    StreamFactory,
    Timeouts,
    open_capture,
)
from tcpstitch.segment import ACK, RST, SYN, reverse_key
from tcpstitch.sequence import unwrap


class Direction:
    """What was captured of one direction, and when what of it was acknowledged."""

    def __init__(self, seq: int) -> None:
        self.seq, self.offset = seq, 0
        self.ranges: List[List[int]] = []  # captured, disjoint, in order
        self.acks: List[int] = []
        self.ack_times: List[float] = []

    def place(self, seq: int) -> int:
        return unwrap(seq, self.seq, self.offset)

    def data(self, segment: Segment, timestamp: float) -> List[Tuple[int, float]]:
        """The new bytes that come late: (count, delay)."""
        start = self.place(segment.seq)
        end = start + segment.length
        late = []
        position = start
        for low, high in [*self.ranges, [end, end]]:
            if low > position and position < end:
                known = bisect_right(self.acks, position)
                if known < len(self.acks):
                    late.append((min(low, end) - position, timestamp - self.ack_times[known]))
            position = max(position, high)
        self._add(start, end)
        if end > self.offset:
            self.seq, self.offset = (self.seq + end - self.offset) & 0xFFFFFFFF, end
        return late

    def _add(self, start: int, end: int) -> None:
        apart = [found for found in self.ranges if found[1] < start or found[0] > end]
        merged = [found for found in self.ranges if not (found[1] < start or found[0] > end)]
        low = min([start, *(found[0] for found in merged)])
        high = max([end, *(found[1] for found in merged)])
        self.ranges = sorted([*apart, [low, high]])[-200:]

    def acknowledged(self, ack: int, timestamp: float) -> None:
        offset = self.place(ack)
        if (not self.acks or offset > self.acks[-1]) and abs(offset - self.offset) < 1 << 24:
            self.acks.append(offset)
            self.ack_times.append(timestamp)

    def never_came(self) -> int:
        """Bytes between those that were captured, acknowledged all the same."""
        acked = self.acks[-1] if self.acks else 0
        holes = zip(self.ranges, self.ranges[1:])
        return sum(max(0, min(following[0], acked) - found[1]) for found, following in holes)


def measure(path: str) -> Tuple[List[Tuple[int, float]], int]:
    decoder = PacketDecoder()
    directions: Dict[Any, Direction] = {}
    late: List[Tuple[int, float]] = []
    lost = 0
    clock = float("-inf")
    with open_capture(path) as capture:
        for timestamp, packet in capture:
            clock = max(clock, timestamp)  # a tap that reorders may also step back in time
            for segment in decoder.decode(packet, timestamp):
                key, flags = segment.key, segment.flags
                if flags & SYN and key in directions:
                    lost += directions.pop(key).never_came()
                if flags & SYN or segment.length:
                    begin = (segment.seq + bool(flags & SYN)) & 0xFFFFFFFF
                    directions.setdefault(key, Direction(begin))
                if segment.length and not flags & (SYN | RST):
                    late += directions[key].data(segment, clock)
                peer = directions.get(reverse_key(key))
                if flags & ACK and peer is not None:
                    peer.acknowledged(segment.ack, clock)
    return late, lost + sum(direction.never_came() for direction in directions.values())


def quantiles(late: List[Tuple[int, float]]) -> str:
    delays = sorted(delay for _, delay in late)
    picks = [delays[min(len(delays) - 1, int(share * len(delays)))] for share in (0.5, 0.9, 0.99)]
    return " ".join(f"{name} {1000 * pick:.3f}" for name, pick in zip(("p50", "p90", "p99"), picks)) + (
        f" max {1000 * delays[-1]:.3f} ms"
    )


def peaks(path: str) -> str:
    """The most pages that the capture needs with each grace, without limits that matter."""
    found = []
    for grace in (None, 1.0, 0.25, 0.1, 0.02, 0.0):
        limits = Limits(max_buffered_pages_per_connection=100_000)
        assembler = Assembler(Everybody(), limits=limits, timeouts=Timeouts(acknowledged=grace, gap=None))
        with assembler, open_capture(path) as capture:
            assembler.run(capture)
        figures = assembler.statistics()
        name = "off" if grace is None else f"{grace} s"
        found.append(f"{name}: {figures.pages_peak} pages, {figures.missing_bytes} bytes missing")
    return "; ".join(found)


class Everybody(StreamFactory):
    """Follows every connection and looks at nothing."""

    def new(self, flow: Flow, segment: Segment, timestamp: float) -> Stream:
        return Stream()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="+", metavar="CAPTURE")
    parser.add_argument("--peak", action="store_true", help="instead: the most pages held, with each of six graces")
    options = parser.parse_args()
    if options.peak:
        for path in options.paths:
            print(f"{path}: {peaks(path)}")
        return
    every: List[Tuple[int, float]] = []
    for path in options.paths:
        try:
            late, lost = measure(path)
        except Exception as error:
            print(f"{path}: {error}", file=sys.stderr)
            continue
        if late or lost:
            figures = f", {quantiles(late)}" if late else ""
            print(
                f"{path}: {len(late)} late pieces of {sum(n for n, _ in late)} bytes{figures}; {lost} bytes never came"
            )
        every += late
    if every:
        print(f"all: {len(every)} late pieces, {quantiles(every)}")


if __name__ == "__main__":
    main()
