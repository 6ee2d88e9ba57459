"""The short path: plain segments in order, on open connections about which nothing is pending.

It works on the frame as it lies; `Assembler.assemble` holds its first steps for the most common frame. Everything it
declines meets the rules, which would do the same with more work.
"""

from __future__ import annotations

from struct import Struct
from typing import Any

from .chunk import Chunk
from .sequence import MASK
from .upkeep import Upkeep
from .validate import TIMESTAMP_LAYOUT

# From the EtherType of an Ethernet frame with IPv4 on: EtherType, version and IHL, total length, fragment word,
# protocol, sequence and acknowledgement number, offset and flags, window.
HEADERS = Struct("!HBxHxxHxBxx12xIIHH").unpack_from
_TCP = Struct("!IIHH").unpack_from


class ShortPath(Upkeep):
    """The part of the assembler that most packets see."""

    def _short_other(self, packet: bytes, ethertype: int, timestamp: float) -> bool:
        """The short path of IPv6, and of both IP versions behind one VLAN tag."""
        at = 14
        if ethertype == 0x8100:
            at = 18
            ethertype = packet[16] << 8 | packet[17]
        if ethertype == 0x86DD and len(packet) >= at + 60 and packet[at + 6] == 6:
            tcp = at + 40
            end = tcp + (packet[at + 4] << 8 | packet[at + 5])
            half = self._halves.get(packet[at + 8 : at + 44])
        elif ethertype == 0x0800 and len(packet) >= at + 40:
            _, version, total, fragment, protocol, _, _, _, _ = HEADERS(packet, at - 2)
            if version != 0x45 or protocol != 6 or fragment & 0x3FFF:
                return False
            tcp = at + 20
            end = at + total
            half = self._halves.get(packet[at + 12 : at + 24])
        else:
            return False
        if half is None:
            return False
        seq, ack, word, window = _TCP(packet, tcp + 4)
        start = tcp + (word >> 10 & 0x3C)
        return (
            word & 0xFFF7 == half.plain
            and seq == half.expected_seq
            and window != 0
            and start <= end <= len(packet)
            and self._in_order(half, packet, tcp, start, end, seq, ack, timestamp)
        )

    def _in_order(
        self, half: Any, packet: bytes, tcp: int, start: int, end: int, seq: int, ack: int, timestamp: float
    ) -> bool:
        """The short path: the next bytes of an open connection about which nothing is pending."""
        if ack != half.last_ack:
            if (half.peer.expected_seq - ack) & MASK > 0x10000:
                return False  # bytes that were not captured, or nonsense: the rules decide
            half.last_ack = ack
        if start - tcp == 32:
            stamp = int.from_bytes(packet[tcp + 24 : tcp + 28], "big")
            if stamp < half.ts_recent or packet[tcp + 20 : tcp + 24] != TIMESTAMP_LAYOUT:
                return False
            half.ts_recent = stamp
        length = end - start
        if length <= self.verify_bytes and length:
            # Decoys are short, and a short checksum costs little: the number modulo 2^16-1 is the sum of its words.
            body = packet[tcp:end] if length & 1 == 0 else packet[tcp:end] + b"\0"
            addresses = packet[tcp - 8 : tcp] if len(half.state.flow.key) == 12 else packet[tcp - 32 : tcp]
            if (int.from_bytes(addresses, "big") + 6 + end - tcp + int.from_bytes(body, "big")) % 0xFFFF:
                return False
        packets = self._packets + 1
        self._packets = half.last_packet = packets
        half.last_seen = timestamp
        if not length:
            return True
        self.counters.bytes += length
        offset = half.next_offset
        half.next_offset = offset + length
        half.expected_seq = (seq + length) & MASK
        self._busy = half
        stream = half.state.stream
        try:
            stream.reassembled(Chunk(packet[start:end], offset, timestamp, half))
        except Exception as error:
            self.handler_failed(half.state, stream, error)
        finally:
            self._busy = None
        if half.keep_offset is not None or half.stopped or half.state.stream is None:
            self._after_short(half, packet[start:end], offset, timestamp)
        return True

    def _after_short(self, half: Any, data: bytes, offset: int, timestamp: float) -> None:
        """What the handler asked for, or did wrong, in the call that the short path made."""
        if half.keep_offset is not None and half.state.stream is not None:
            half.keep(Chunk(data, offset, timestamp, half))
        half.state.refresh()
        self.raise_pending()
