"""What link types and encapsulations cost beside plain IPv4 over Ethernet, through `Assembler.run`.

    python benchmarks/encapsulations.py [--rounds 7] [--packets 20000]

One connection sends full-size segments, every second one acknowledged. Each round runs all kinds in one process.
Reported is the median of the times per packet divided by that of IPv4 in the same round. All deliver the same bytes.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import struct
import time
from ipaddress import ip_address
from typing import Any, Callable, Dict, List, Tuple

from frames import Connection, Side

from tcpstitch import Assembler, Stream, StreamFactory
from tcpstitch.capture import make_packet

PORTS = (40000, 443)
SEGMENT = bytes(range(256)) * 5 + bytes(120)
MAC = b"\x02\0\0\0\0\x01\x02\0\0\0\0\x02"
Packets = List[Tuple[float, Any]]


class Sum(Stream):
    """Counts bytes, as the least that a handler can do."""

    total = 0

    def reassembled(self, chunk: Any) -> None:
        Sum.total += len(chunk.data)


class Factory(StreamFactory):
    def new(self, flow: Any, segment: Any, timestamp: float) -> Stream:
        return Sum()


def transfer(addresses: Tuple[str, str], packets: int, vlan: Any = None) -> List[bytes]:
    client, server = (ip_address(address).packed for address in addresses)
    connection = Connection(
        Side(client, server, PORTS, vlan), Side(server, client, (PORTS[1], PORTS[0]), vlan), 1000
    )
    made = connection.handshake()
    while len(made) < packets:
        made += [connection.segment(1, SEGMENT), connection.segment(1, SEGMENT), connection.segment(0)]
    return made


def outer(body: bytes, protocol: int) -> bytes:
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(body), 0, 0, 64, protocol, 0)
    return MAC + b"\x08\0" + head + b"\xc0\0\2\1\xc0\0\2\2" + body


def udp(body: bytes, port: int) -> bytes:
    return outer(struct.pack("!HHHH", 50000, port, 8 + len(body), 0) + body, 17)


# name: (link type, what a plain IPv4 frame becomes)
WRAPPED: Dict[str, Tuple[int, Callable[[bytes], bytes]]] = {
    "raw IP (101)": (101, lambda frame: frame[14:]),
    "SLL (113)": (113, lambda frame: bytes(14) + frame[12:]),
    "SLL2 (276)": (276, lambda frame: frame[12:14] + bytes(18) + frame[14:]),
    "BSD loopback (0)": (0, lambda frame: b"\2\0\0\0" + frame[14:]),
    "two VLAN tags": (1, lambda frame: MAC + b"\x88\xa8\0\1\x81\0\0\2" + frame[12:]),
    "MPLS": (1, lambda frame: MAC + b"\x88\x47\0\0\x11\x40" + frame[14:]),
    "PPPoE": (1, lambda frame: MAC + struct.pack("!HBBHHH", 0x8864, 0x11, 0, 9, len(frame) - 12, 0x21) + frame[14:]),
    "IP in IP": (1, lambda frame: outer(frame[14:], 4)),
    "GRE": (1, lambda frame: outer(b"\0\0\x08\0" + frame[14:], 47)),
    "VXLAN": (1, lambda frame: udp(struct.pack("!II", 8 << 24, 99 << 8) + frame, 4789)),
    "GTP-U": (1, lambda frame: udp(struct.pack("!BBHI", 0x30, 255, len(frame) - 14, 5) + frame[14:], 2152)),
}


def fragmented(frames: List[bytes]) -> List[bytes]:
    made = []
    for number, frame in enumerate(frames):
        body = frame[34:]
        for start, end in ((0, 800), (800, len(body))):
            if start < len(body):
                more = 0x2000 if end < len(body) else 0
                part = body[start:end]
                made.append(frame[:16] + struct.pack("!HHH", 20 + len(part), number & 0xFFFF, more | start // 8)
                            + frame[22:34] + part)  # fmt: skip
    return made


def workloads(packets: int) -> Dict[str, Tuple[str, Packets]]:
    plain = transfer(("10.0.0.1", "10.0.0.2"), packets)
    six = ("2001:db8::1", "2001:db8::2")
    kinds: Dict[str, Tuple[int, str, List[bytes]]] = {
        "IPv4": (1, "plain", plain),
        "IPv6": (1, "plain", transfer(six, packets)),
        "one VLAN tag": (1, "plain", transfer(("10.0.0.1", "10.0.0.2"), packets, 5)),
        "one VLAN tag, IPv6": (1, "plain", transfer(six, packets, 5)),
        'one VLAN tag, flow_key="vlan"': (1, "vlan", transfer(("10.0.0.1", "10.0.0.2"), packets, 5)),
    }
    for name, (linktype, wrap) in WRAPPED.items():
        kinds[name] = (linktype, "plain", [wrap(frame) for frame in plain])
    kinds["IPv4 in two fragments"] = (1, "plain", fragmented(plain))
    return {
        name: (key, [(1.0 + number * 1e-5, make_packet(linktype, frame)) for number, frame in enumerate(frames)])
        for name, (linktype, key, frames) in kinds.items()
    }


def seconds(flow_key: str, packets: Packets) -> Tuple[float, int]:
    Sum.total = 0
    assembler = Assembler(Factory(), flow_key=flow_key)
    gc.collect()
    start = time.perf_counter()
    assembler.run(packets)
    taken = time.perf_counter() - start
    assembler.flush_all()
    return taken, Sum.total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--packets", type=int, default=20000)
    options = parser.parse_args()
    loads = workloads(options.packets)
    times: Dict[str, List[float]] = {name: [] for name in loads}
    totals = set()
    for turn in range(options.rounds + 1):
        for name, load in loads.items():
            taken, total = seconds(*load)
            totals.add(total)
            if turn:  # the first round warms up
                # Per packet of the plain capture: two fragments are one packet.
                times[name].append(taken / options.packets)
    assert len(totals) == 1, totals
    print("| | µs per packet | × IPv4 |\n|---|---|---|")
    for name, each in times.items():
        ratio = statistics.median(one / plain for one, plain in zip(each, times["IPv4"]))
        print(f"| {name} | {statistics.median(each) * 1e6:.2f} | {ratio:.2f} |")


if __name__ == "__main__":
    main()
