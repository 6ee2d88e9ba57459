"""Bytes to `Segment`: link types, VLANs and tunnels, IPv4 and IPv6, fragments, TCP."""

from __future__ import annotations

from .decoder import PacketDecoder
from .link import as_ethernet

__all__ = ["PacketDecoder", "as_ethernet"]
