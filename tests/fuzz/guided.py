"""Coverage-guided fuzzing with atheris: `make fuzz`, or `python tests/fuzz/guided.py [--seconds N] [TARGET ...]`.

Each target runs in a process of its own, from seeds made of the tests' own frames and captures, and ends at the first
input that raises, breaks a promise, takes longer than TIME_LIMIT seconds or MEMORY_LIMIT megabytes; that input is left
in the directory named. Without a finding each uses up its share of the seconds and the exit status is 0.
"""

from __future__ import annotations

import argparse
import gzip
import io
import struct
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any, Callable, Dict, List

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

try:
    import atheris
except ImportError:
    sys.exit("coverage-guided fuzzing needs atheris: pip install 'tcpstitch[fuzz]', or make fuzz")

with atheris.instrument_imports(include=["tcpstitch"]):
    from tcpstitch import Assembler, Limits, PacketDecoder, Stream, StreamFactory, Timeouts, open_capture
    from tcpstitch.errors import CaptureError

from decode_frames import pieces_of_everything  # noqa: E402
from small_captures import exchange  # noqa: E402
from support import files  # noqa: E402
from support.frames import CLIENT, CLIENT6, SERVER, SERVER6, tcp_frame  # noqa: E402

TIME_LIMIT, MEMORY_LIMIT, LONGEST_INPUT = 10, 1024, 4096
FLOW_KEYS = ("plain", "vlan", "tunnel")
POLICIES = ("first", "last", "bsd", "linux", "old-linux", "solaris", "linux-kernel")
LIMITS = Limits(8, 24, max_connections=6, page_size=256, max_fragments=8, max_history_bytes_per_connection=64)


def decode(data: bytes) -> None:
    """Two bytes of link type, one of options, then packets of one byte of length each."""
    if len(data) < 3:
        return
    linktype, options = struct.unpack_from("!HB", data)
    decoder = PacketDecoder(flow_key=FLOW_KEYS[options % 3], max_fragments=4)
    rest, pieces = data[3:], 1 + (options >> 6)
    size = len(rest) // pieces + 1
    for number in range(pieces):
        packet = rest[number * size : (number + 1) * size]
        before = sum(decoder.counts.values())
        segments = decoder.decode(packet, float(number), linktype)
        assert segments or sum(decoder.counts.values()) > before
        for segment in segments:
            assert len(segment.payload) <= segment.length
            segment.checksum_ok()
            repr(segment)
        assert decoder.fragments_held <= 4


class Counting(Stream):
    """Holds the promises of the callbacks; `exact` where no urgent byte is taken out of the stream."""

    def __init__(self, exact: bool) -> None:
        self.exact = exact
        self.completions = 0
        self.next = [0, 0]
        self.kept = [0, 0]  # where the next chunk starts if all that was kept could be

    def reassembled(self, chunk: Any) -> None:
        assert not self.completions
        if chunk.skip >= 0:
            low, high = self.kept[chunk.direction], self.next[chunk.direction]  # bounds may drop what was kept
            assert low <= chunk.offset <= high or not self.exact and chunk.offset > high
        self.kept[chunk.direction] = self.next[chunk.direction] = chunk.offset + len(chunk.data)
        if len(chunk.data) % 7 == 3:
            chunk.keep_from(len(chunk.data) // 2)
            self.kept[chunk.direction] = chunk.offset + len(chunk.data) // 2

    def gap(self, gap: Any) -> None:
        assert gap.length > 0 and not self.completions
        self.kept[gap.direction] = self.next[gap.direction] = gap.offset + gap.length

    def complete(self, reason: str) -> None:
        self.completions += 1


class Factory(StreamFactory):
    def __init__(self, exact: bool = True) -> None:
        self.exact = exact
        self.streams: List[Counting] = []

    def new(self, flow: Any, segment: Any, timestamp: float) -> Stream:
        self.streams.append(Counting(self.exact))
        return self.streams[-1]


def assemble(data: bytes) -> None:
    """Options, then ten bytes for each segment: numbers near each other, so that they overlap, end and begin again."""
    if len(data) < 4:
        return
    options, policy, base = data[0], POLICIES[data[1] % len(POLICIES)], (data[2] << 24) - 40
    factory = Factory(exact=not options & 1)
    assembler = Assembler(
        factory, limits=LIMITS, overlap=policy, checks=("lenient", "strict")[options & 1],
        start=("any", "syn")[options >> 1 & 1], on_limit=("deliver", "drop", "abandon")[(options >> 2) % 3],
        timeouts=Timeouts(gap=5, idle=60, embryonic=20, closed=10, acknowledged=1),
    )  # fmt: skip
    now = 1000.0
    for at in range(3, len(data) - 9, 10):
        who, seq, ack, flags, window, size, pause, extra = struct.unpack_from("!BBhBBBBB", data, at)
        now += pause / 16 if pause < 250 else -1.0 if pause < 253 else pause * 40.0
        client, server = ((CLIENT[0], 40000 + (who >> 1 & 3)), SERVER) if not who & 8 else (CLIENT6, SERVER6)
        source, target = (client, server) if who & 1 else (server, client)
        frame = tcp_frame(
            source, target, base + seq, bytes([extra]) * (size * 9 if who & 16 else size % 50),
            "".join(letter for bit, letter in enumerate("FSRPAU") if flags >> bit & 1), base + ack, window << 8,
            urgent_pointer=extra % 9, bad_checksum=bool(who & 32), ttl=2 if who & 64 else 64,
        )  # fmt: skip
        assembler.assemble(frame[: len(frame) - 5] if who & 128 else frame, now)
        statistics = assembler.statistics()
        assert statistics.pages_used <= 24 and statistics.connections <= 6
        assert statistics.pages_used + statistics.pages_free == statistics.pages_allocated
    assembler.check()
    assembler.flush_all()
    assert assembler.statistics().pages_used == 0
    assert all(stream.completions == 1 for stream in factory.streams)


def capture(data: bytes) -> None:
    """A file as it is. What it claims must not cost more than it holds."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with open_capture(io.BytesIO(data)) as packets, Assembler(Factory(), limits=LIMITS) as assembler:
                assembler.run(packets)
        except CaptureError:
            pass


TARGETS: Dict[str, Callable[[bytes], None]] = {"decode": decode, "assemble": assemble, "capture": capture}


def seeds(target: str) -> List[bytes]:
    if target == "decode":
        return [struct.pack("!HB", linktype, 2) + packet for linktype, packet in pieces_of_everything()]
    if target == "assemble":
        steps = [(1, 0, 0, 2, 9, 0, 1, 0), (0, 0, 1, 18, 9, 0, 1, 0), (1, 1, 1, 16, 9, 20, 1, 65),
                 (1, 41, 1, 16, 9, 20, 1, 67), (1, 21, 1, 16, 9, 20, 1, 66), (1, 61, 1, 17, 9, 0, 1, 0),
                 (0, 1, 62, 17, 9, 0, 1, 0)]  # fmt: skip
        body = b"".join(struct.pack("!BBhBBBBBx", *step) for step in steps)
        return [bytes((options, policy, 7)) + body for options in range(12) for policy in range(len(POLICIES))]
    packets = [(1000.0 + number, packet) for number, packet in enumerate(exchange())]
    plain = [files.pcap(packets, order, magic) for order in "<>" for magic in (0xA1B2C3D4, 0xA1B23C4D, 0xA1B2CD34)]
    return [*plain, files.snoop(packets), files.pcapng(), files.pcapng(order=">"), gzip.compress(plain[0])]


def run_target(target: str, seconds: int, directory: Path) -> None:
    corpus = directory / target
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(seeds(target)):
        (corpus / f"seed{number}").write_bytes(seed)
    atheris.Setup(
        [sys.argv[0], f"-max_total_time={seconds}", f"-timeout={TIME_LIMIT}", f"-rss_limit_mb={MEMORY_LIMIT}",
         f"-max_len={LONGEST_INPUT}", f"-artifact_prefix={directory}/{target}-", "-print_final_stats=1", "-verbosity=0",
         str(corpus)],
        TARGETS[target],
    )  # fmt: skip
    atheris.Fuzz()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join(TARGETS))
    parser.add_argument("--seconds", type=int, default=600, help="for all targets together (default 600)")
    parser.add_argument("--directory", type=Path, help="where inputs are kept (default: a new one)")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if set(options.targets) - set(TARGETS):
        parser.error(f"targets are {', '.join(TARGETS)}")
    directory = options.directory or Path(tempfile.mkdtemp(prefix="tcpstitch-fuzz-"))
    if options.here:
        run_target(options.targets[0], options.seconds, directory)
    names = options.targets or list(TARGETS)
    failed = []
    for name in names:
        share = max(1, options.seconds // len(names))
        command = [sys.executable, __file__, name, "--here", "--seconds", str(share), "--directory", str(directory)]
        if subprocess.run(command, check=False).returncode:
            failed.append(name)
    said = f"{' '.join(failed)} FAILED" if failed else f"nothing found by {' '.join(names)}"
    print(f"inputs in {directory}: {said}")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
