"""One measurement in a process of its own: `python runners.py NAME CAPTURE [--hash]` prints a JSON object.

packets, bytes delivered, seconds from opening the file to the last callback, resident size in KiB before the first
packet and at its peak, and with --hash the digest of what was delivered (hashing is left out of timed runs).
"""

from __future__ import annotations

import argparse
import functools
import importlib
import json
import mmap
import resource
import struct
import sys
import time
from typing import Any, Callable, Dict, List, Optional, Tuple

from workloads import Digest

Result = Tuple[int, int]  # packets, bytes


def memory_kib(name: str) -> int:
    """`VmRSS` or `VmHWM` of this process; unlike ru_maxrss the peak is not inherited from the parent."""
    with open("/proc/self/status", encoding="ascii") as file:
        for line in file:
            if line.startswith(name + ":"):
                return int(line.split()[1])
    return 0


@functools.cache
def counting() -> tuple[Any, List[int]]:
    """A factory whose streams count bytes. Made once: a program's handlers are not new classes for each capture, which
    a tracing compiler would have to learn anew."""
    from tcpstitch import Chunk, Stream, StreamFactory

    total = [0]

    class Counter(Stream):
        __slots__ = ()

        def reassembled(self, chunk: Chunk) -> None:
            total[0] += len(chunk.data)

    class Factory(StreamFactory):
        def new(self, flow: Any, segment: Any, timestamp: float) -> Stream:
            return Counter()

    return Factory(), total


def hashing(digest: Digest) -> tuple[Any, List[int]]:
    """A factory whose streams digest bytes."""
    from tcpstitch import Chunk, Stream, StreamFactory
    from tcpstitch.segment import reverse_key

    total = [0]

    class Hasher(Stream):
        __slots__ = ("keys",)

        def __init__(self, key: Any) -> None:
            self.keys = (key, reverse_key(key))

        def reassembled(self, chunk: Chunk) -> None:
            total[0] += len(chunk.data)
            digest.update(self.keys[chunk.direction], chunk.data)  # type: ignore[arg-type]

    class Factory(StreamFactory):
        def new(self, flow: Any, segment: Any, timestamp: float) -> Stream:
            return Hasher(flow.key)

    return Factory(), total


def own_factory(digest: Optional[Digest]) -> tuple[Any, List[int]]:
    """A factory whose streams count bytes, or digest them, and where they count."""
    factory, total = counting() if digest is None else hashing(digest)
    total[0] = 0
    return factory, total


def run(path: str, digest: Optional[Digest]) -> Result:
    """This library, `assembler.run(capture)`."""
    from tcpstitch import Assembler, Limits, open_capture

    factory, total = own_factory(digest)
    with Assembler(factory, limits=Limits(max_connections=2_000_000)) as assembler, open_capture(path) as capture:
        assembler.run(capture)
    return assembler.statistics().packets, total[0]


@functools.cache
def keeping() -> tuple[Any, List[int]]:
    """A factory whose streams do what programs do: a name, what came first, what ended it."""
    from tcpstitch import Chunk, Stream, StreamFactory

    total = [0]

    class Keeper(Stream):
        def __init__(self, name: str) -> None:
            self.name = name
            self.parts: List[Any] = []
            self.size = 0

        def reassembled(self, chunk: Chunk) -> None:
            self.size += len(chunk.data)
            if chunk.start:
                self.parts.append(chunk.data[:16])

        def complete(self, reason: str) -> None:
            self.parts.append(reason)
            total[0] += self.size

    class Factory(StreamFactory):
        def new(self, flow: Any, segment: Any, timestamp: float) -> Stream:
            return Keeper(str(flow))

    return Factory(), total


def busy(path: str, digest: Optional[Digest]) -> Result:
    """This library with a handler that does more than to count."""
    from tcpstitch import Assembler, Limits, open_capture

    factory, total = keeping()
    total[0] = 0
    with Assembler(factory, limits=Limits(max_connections=2_000_000)) as assembler, open_capture(path) as capture:
        assembler.run(capture)
    return assembler.statistics().packets, total[0]


def assemble(path: str, digest: Optional[Digest]) -> Result:
    """This library, `assemble` called for each packet by the user's own loop."""
    from tcpstitch import Assembler, Limits, open_capture

    factory, total = own_factory(digest)
    with Assembler(factory, limits=Limits(max_connections=2_000_000)) as assembler, open_capture(path) as capture:
        for timestamp, packet in capture:
            assembler.assemble(packet, timestamp)
    return assembler.statistics().packets, total[0]


def strict(path: str, digest: Optional[Digest]) -> Result:
    """This library with strict checks."""
    from tcpstitch import Assembler, open_capture

    factory, total = own_factory(digest)
    with Assembler(factory, checks="strict") as assembler, open_capture(path) as capture:
        assembler.run(capture)
    return assembler.statistics().packets, total[0]


def dpkt_decode(path: str, digest: Optional[Digest]) -> Result:
    """dpkt: read and decode, nothing else."""
    import dpkt

    packets = size = 0
    with open(path, "rb") as file:
        for _, frame in dpkt.pcap.Reader(file):
            packets += 1
            size += len(dpkt.ethernet.Ethernet(frame).data.data.data)
    return packets, size


def dpkt_dict(path: str, digest: Optional[Digest]) -> Result:
    """dpkt and a dict of lists, sorted at the end: what one writes in an afternoon; no bound, no wrap."""
    import dpkt

    flows: Dict[bytes, List[Tuple[int, bytes]]] = {}
    packets = size = 0
    with open(path, "rb") as file:
        for _, frame in dpkt.pcap.Reader(file):
            packets += 1
            ip = dpkt.ethernet.Ethernet(frame).data
            tcp = ip.data
            if tcp.data:
                key = ip.src + ip.dst + struct.pack("!HH", tcp.sport, tcp.dport)
                flows.setdefault(key, []).append((tcp.seq, tcp.data))
    for key, parts in flows.items():
        parts.sort()
        reach = parts[0][0]
        for seq, content in parts:
            if seq + len(content) > reach:
                content = content[max(0, reach - seq) :]
                reach = max(reach, seq) + len(content)
                size += len(content)
                if digest is not None:
                    digest.update(key, content)
    return packets, size


def plain_dict(path: str, digest: Optional[Digest]) -> Result:
    """The floor: cut the frames out of the file, one dict look-up each, count bytes. Ethernet and IPv4 only."""
    counts: Dict[bytes, int] = {}
    packets, position, record = 0, 24, struct.Struct("<8xI4x16xH")
    with open(path, "rb") as file:
        content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    end = len(content)
    while position < end:
        size, _ = record.unpack_from(content, position)
        frame = content[position + 16 : position + 16 + size]
        position += 16 + size
        packets += 1
        key = frame[26:38]
        counts[key] = counts.get(key, 0) + size - 34 - (frame[46] >> 4) * 4
    return packets, sum(counts.values())


def scapy_session(path: str, digest: Optional[Digest]) -> Result:
    """scapy's TCPSession, which hands on the packets that it thinks complete; so it does not say how many it read."""
    scapy = importlib.import_module("scapy.all")
    tcp = scapy.TCP

    seen = [0, 0]

    def count(packet: Any) -> None:
        seen[0] += 1
        if tcp in packet:
            seen[1] += len(packet[tcp].payload)

    scapy.sniff(offline=path, session=scapy.TCPSession, prn=count, store=False)
    return 0, seen[1]


def pypcapkit_own(path: str, digest: Optional[Digest]) -> Result:
    """pypcapkit with its own engine and its TCP reassembly. Under a memory cap: a wrapped sequence number makes it ask
    for 4 GB."""
    resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))
    pcapkit = importlib.import_module("pcapkit")
    found = pcapkit.extract(fin=path, nofile=True, store=False, reassembly=True, tcp=True, reasm_strict=False)
    size = 0
    for datagram in found.reassembly.tcp:
        ends = datagram.id.src, datagram.id.dst
        key = b"".join(ip.packed for ip, _ in ends) + b"".join(port.to_bytes(2, "big") for _, port in ends)
        for part in [datagram.payload] if isinstance(datagram.payload, bytes) else datagram.payload:
            size += len(part)
            if digest is not None:
                digest.update(key, part)
    return found.length, size


RUNNERS: Dict[str, Callable[[str, Optional[Digest]], Result]] = {
    "run": run,
    "busy": busy,
    "strict": strict,
    "assemble": assemble,
    "dpkt": dpkt_decode,
    "dpkt-dict": dpkt_dict,
    "plain-dict": plain_dict,
    "scapy": scapy_session,
    "pypcapkit": pypcapkit_own,
}
_IMPORTS = {"dpkt": "dpkt", "dpkt-dict": "dpkt", "scapy": "scapy.all", "pypcapkit": "pcapkit"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runner", choices=sorted(RUNNERS))
    parser.add_argument("capture")
    parser.add_argument("--hash", action="store_true")
    parser.add_argument("--warm", type=int, default=0, help="packets to take before the pass that counts, at least")
    options = parser.parse_args()
    if options.runner in _IMPORTS:
        importlib.import_module(_IMPORTS[options.runner])
    elif options.runner != "plain-dict":
        importlib.import_module("tcpstitch.readers")  # assembler and captures
    taken = 0
    while taken < options.warm:
        taken += RUNNERS[options.runner](options.capture, None)[0] or options.warm  # scapy's does not say
    digest = Digest() if options.hash else None
    start_kib = memory_kib("VmRSS")
    started = time.perf_counter()
    packets, size = RUNNERS[options.runner](options.capture, digest)
    answer: Dict[str, Any] = {
        "packets": packets,
        "bytes": size,
        "seconds": time.perf_counter() - started,
        "start_kib": start_kib,
        "peak_kib": memory_kib("VmHWM"),
    }
    if digest is not None:
        answer["digest"] = digest.hexdigest()
    json.dump(answer, sys.stdout)


if __name__ == "__main__":
    main()
