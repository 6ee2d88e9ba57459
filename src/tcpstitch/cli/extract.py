"""`tcpstitch extract`: one file per direction, and an index."""

from __future__ import annotations

import argparse
import errno
import os
from collections import OrderedDict
from ipaddress import ip_address
from typing import Any, BinaryIO, Dict, Optional, Tuple

from ..chunk import Anomaly, Chunk, Gap
from ..errors import UsageError
from ..segment import Direction, Endpoint, Flow, Segment, context_text
from ..stream import Stream, StreamFactory
from .common import add_options, counted, make_assembler, open_source, read, say, summary
from .index import INDEX_NAME, Gaps, Index

_OPEN_FILES = 128


def endpoint_name(endpoint: Endpoint) -> str:
    """An endpoint as tcpflow writes it, with every part at full width so that names sort, 010.009.000.001.08080; IPv6
    addresses too, which it shortens."""
    address = ip_address(endpoint.address)
    if address.version == 4:
        return ".".join(f"{part:03d}" for part in address.packed) + f".{endpoint.port:05d}"
    return f"{address.exploded}.{endpoint.port:05d}"


class Output:
    """The directory: names, a bounded number of open files, the index.

    Memory is bounded whatever the number of connections: a name in use is recognised by its file.
    """

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._open: OrderedDict[str, BinaryIO] = OrderedDict()
        self.files = 0
        if not directory:
            raise UsageError("the output's name is empty: give a new directory")
        try:
            os.makedirs(directory, exist_ok=True)
        except FileExistsError:
            raise UsageError(f"{directory}: is no directory; give a new one") from None
        if os.listdir(directory):
            raise UsageError(f"{directory}: the directory is not empty; give a new one")
        self.index = Index(directory)

    def names(self, flow: Flow) -> Tuple[str, str]:
        """Unused names for both directions; a recurring pair of endpoints gets c1, c2 and so on. O(log n) looks for a
        file, for n connections of the pair."""
        client, server = endpoint_name(flow.client), endpoint_name(flow.server)

        def named(count: int) -> Tuple[str, str]:
            suffix = f"c{count}" if count else ""
            return f"{client}-{server}{suffix}", f"{server}-{client}{suffix}"

        def used(count: int) -> bool:
            return any(os.path.exists(os.path.join(self._directory, name)) for name in named(count))

        last, free = -1, 0
        while used(free):
            last, free = free, 2 * free + 1
        while free - last > 1:  # where names between are free, any of them will do
            middle = (last + free) // 2
            if used(middle):
                last = middle
            else:
                free = middle
        return named(free)

    def append(self, name: str, data: bytes) -> None:
        """Append to a file, opening it again if it was closed for others. Raises OSError."""
        file = self._open.get(name)
        if file is None:
            file = self._open[name] = self._opened(os.path.join(self._directory, name))
        else:
            self._open.move_to_end(name)
        file.write(data)

    def _opened(self, path: str) -> BinaryIO:
        while True:
            if len(self._open) >= _OPEN_FILES:
                self._open.popitem(last=False)[1].close()
            try:
                return open(path, "ab")
            except OSError as error:
                if error.errno != errno.EMFILE or not self._open:
                    raise
                self._open.popitem(last=False)[1].close()  # this process may have fewer

    def finish(self, name: Optional[str]) -> None:
        """Close a file that gets no more data."""
        file = self._open.pop(name, None) if name is not None else None
        if file is not None:
            file.close()

    def close(self) -> None:
        while self._open:
            self._open.popitem()[1].close()
        self.index.close()


class _Side:
    """What the index says about one direction."""

    __slots__ = ("file", "bytes", "missing", "gaps")

    def __init__(self) -> None:
        self.file: Optional[str] = None
        self.bytes = 0
        self.missing = 0
        self.gaps = Gaps()

    def entry(self) -> Dict[str, Any]:
        return {"file": self.file, "bytes": self.bytes, "missing": self.missing, "gaps": self.gaps}


class _Extracted(Stream):
    """Writes one connection out as it comes. O(1) memory."""

    __slots__ = ("_output", "_flow", "_start", "_sides", "_names", "_anomalies")

    def __init__(self, output: Output, flow: Flow, start: float) -> None:
        self._output = output
        self._flow = flow
        self._start = start
        self._sides = (_Side(), _Side())
        self._names: Optional[Tuple[str, str]] = None
        self._anomalies: Dict[str, int] = {}

    def reassembled(self, chunk: Chunk) -> None:
        if not chunk.data:
            return
        side = self._sides[chunk.direction]
        if side.file is None:
            if self._names is None:
                self._names = self._output.names(self._flow)
            side.file = self._names[chunk.direction]
            self._output.files += 1
        side.bytes += len(chunk.data)
        self._output.append(side.file, chunk.data)

    def gap(self, gap: Gap) -> None:
        side = self._sides[gap.direction]
        side.missing += gap.length
        self._output.index.add(side.gaps, gap.offset, gap.length, gap.reason)

    def anomaly(self, anomaly: Anomaly) -> None:
        self._anomalies[anomaly.kind] = self._anomalies.get(anomaly.kind, 0) + 1

    def complete(self, reason: str) -> None:
        for side in self._sides:
            self._output.finish(side.file)
        client, server = self._flow.client, self._flow.server
        self._output.index.record(
            {
                "client": {"address": client.address, "port": client.port},
                "server": {"address": server.address, "port": server.port},
                **({"context": [context_text(part) for part in self._flow.context]} if self._flow.context else {}),
                "start": self._start,
                "reason": reason,
                "client_to_server": self._sides[Direction.CLIENT_TO_SERVER].entry(),
                "server_to_client": self._sides[Direction.SERVER_TO_CLIENT].entry(),
                "anomalies": self._anomalies,
            }
        )


class _Factory(StreamFactory):
    output: Output

    def new(self, flow: Flow, segment: Segment, timestamp: float) -> Stream:
        return _Extracted(self.output, flow, timestamp)


def run(options: argparse.Namespace) -> int:
    factory = _Factory()
    assembler = make_assembler(factory, options)
    # The capture first: a mistyped name should leave no directory behind.
    with open_source(options) as capture:
        factory.output = Output(options.output)
        try:
            status = read(assembler, capture, options)
        finally:
            factory.output.close()
    say(f"{summary(assembler.statistics())}, {counted(factory.output.files, 'file')} in {options.output}")
    return status


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        "extract",
        help="one file per direction, and an index",
        description="Write what each side of each connection sent to a file of its own, named as tcpflow does but "
        f"with IPv6 addresses in full, and {INDEX_NAME} with one JSON object per connection. Missing bytes are left "
        "out of the files; the index lists them as [offset, length, reason]. A direction without data has no file. "
        "Anomalies are counted by kind, as far as they came before the connection was over.",
    )
    add_options(parser)
    parser.add_argument("-o", "--output", required=True, metavar="DIR", help="a new or empty directory")
    parser.set_defaults(run=run)
