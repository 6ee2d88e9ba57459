"""TCP streams put back together from captured packets, in pure Python, inside a memory bound.

Subclass `Stream` and `StreamFactory`, give a factory to `Assembler` and packets to its `run` or `assemble`;
`open_capture` reads files, `tcpstitch.live.sniff` an interface of Linux. `connections` holds whole connections, for
small captures. `tcpstitch.parallel` uses more cores, `tcpstitch.metrics` tells Prometheus, `tcpstitch.state_machine`
has gopacket's checks, `tcpstitch.segment` the flags (`SYN`, `ACK`, ...). These and the names in `__all__` are for
programs to use; all other modules are the library's own.

Times are seconds of capture time; offsets count from the first byte after the SYN. Everything raised on purpose is a
`TcpStitchError`; captured traffic raises nothing.
"""

TYPE_CHECKING = False  # as type checkers know it; importing typing for its constant would cost most of the start
if TYPE_CHECKING:
    from .assembler import Assembler
    from .capture import Capture, open_capture
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
    from .readers import Connection, connections
    from .segment import Direction, Endpoint, Flow, Segment
    from .statistics import FlushResult, Holder, Statistics
    from .stream import OverLimit, Stream, StreamFactory

__version__ = "0.1.0"

__all__ = [
    "Anomaly", "Assembler", "Capture", "CaptureError", "CaptureWarning", "Chunk", "Connection", "DecodeError",
    "Direction", "Endpoint", "Flow", "FlushResult", "Gap", "Holder", "Limits", "LimitsError", "OverLimit",
    "PacketDecoder", "PacketInfo", "PacketTypeError", "ReentrantCallError", "Segment", "Statistics", "Stream",
    "StreamCallbackError", "StreamFactory", "TcpStitchError", "Timeouts", "UsageError", "connections", "open_capture",
]  # fmt: skip

# Where each name lives: a module is imported when the first of its names is asked for (PEP 562). Not `metrics`, which
# may raise ImportError: whoever looks at all attributes of a module expects none of that.
_HOMES = {
    "assembler": "Assembler",
    "capture": "Capture open_capture",
    "chunk": "Anomaly Chunk Gap PacketInfo",
    "decode": "PacketDecoder",
    "errors": "CaptureError CaptureWarning DecodeError LimitsError PacketTypeError ReentrantCallError "
    "StreamCallbackError TcpStitchError UsageError",
    "limits": "Limits Timeouts",
    "live": "",
    "parallel": "",
    "readers": "Connection connections",
    "segment": "Direction Endpoint Flow Segment",
    "state_machine": "",
    "statistics": "FlushResult Holder Statistics",
    "stream": "OverLimit Stream StreamFactory",
}

if not TYPE_CHECKING:  # or else they would take any name to exist

    def __getattr__(name: str) -> object:
        from importlib import import_module

        for home, names in _HOMES.items():
            if name == home or name in names.split():
                module = import_module("." + home, __name__)
                value = module if name == home else getattr(module, name)
                globals()[name] = value
                return value
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> "list[str]":
    return sorted({*globals(), *__all__, *_HOMES})
