"""How often captures show each kind of anomaly, and how many of them do: the last columns of docs/anomalies.md.

    python benchmarks/evidence.py CAPTURE ...

Checks are lenient, and the last 64 KiB of each direction are kept, so that conflicts with delivered bytes count too.
"""

from __future__ import annotations

import argparse
import warnings
from collections import Counter

from grace import Everybody

from tcpstitch import Assembler, CaptureWarning, Limits, open_capture

LIMITS = Limits(max_history_bytes_per_connection=1 << 16)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="+", metavar="CAPTURE")
    warnings.simplefilter("ignore", CaptureWarning)  # damaged captures are among them
    times: Counter[str] = Counter()
    captures: Counter[str] = Counter()
    for path in parser.parse_args().paths:
        with Assembler(Everybody(), limits=LIMITS) as assembler, open_capture(path) as capture:
            assembler.run(capture)
        found = assembler.statistics().anomalies
        times.update(found)
        captures.update(found.keys())
    for kind in sorted(times):
        print(f"{kind:24} {times[kind]} in {captures[kind]}")


if __name__ == "__main__":
    main()
