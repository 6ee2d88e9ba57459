"""TCP streams put back together from captured packets, in pure Python, inside a memory bound."""

from .assembler import Assembler
from .capture import open_capture
from .chunk import Anomaly, Chunk, Gap, PacketInfo
from .decode import PacketDecoder
from .errors import (
    CaptureError,
    CaptureWarning,
    DecodeError,
    LimitsError,
    PacketTypeError,
    ReentrantCallError,
    StreamCallbackError,
    TcpStitchError,
    UsageError,
)
from .limits import Limits, Timeouts
from .readers import connections
from .segment import Direction, Endpoint, Flow, Segment
from .statistics import FlushResult, Holder, Statistics
from .stream import Stream, StreamFactory

__version__ = "0.1.0"

__all__ = [
    "Anomaly", "Assembler", "CaptureError", "CaptureWarning", "Chunk", "DecodeError", "Direction", "Endpoint", "Flow",
    "FlushResult", "Gap", "Holder", "Limits", "LimitsError", "PacketDecoder", "PacketInfo", "PacketTypeError",
    "ReentrantCallError", "Segment", "Statistics", "Stream", "StreamCallbackError", "StreamFactory", "TcpStitchError",
    "Timeouts", "UsageError", "connections", "open_capture",
]  # fmt: skip
