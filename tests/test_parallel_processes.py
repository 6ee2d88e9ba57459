"""The processes of a pool of our own: as many as there may be, and none left behind."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from support.parts import alone

FEW_FILES = """
import multiprocessing, resource, sys
from support.parts import Factory
from tcpstitch.parallel import run

if __name__ == "__main__":
    multiprocessing.set_start_method(sys.argv[2])
    resource.setrlimit(resource.RLIMIT_NOFILE, (30, 30))
    print(len(run(sys.argv[1], Factory, parts=4, workers=2).results))
    print(len(run([sys.argv[1]] * 14, Factory, workers=14).results))
"""

HANDLING_SIGTERM = """
import os, signal, sys, time
from tcpstitch import StreamFactory
from tcpstitch.parallel import run

class Waiting(StreamFactory):
    def __init__(self, emit):
        os.kill(os.getppid(), signal.SIGINT)
        while True:
            time.sleep(1)

if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda number, frame: None)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        run(sys.argv[1], Waiting, workers=1)
    except KeyboardInterrupt:
        print("interrupted")
"""


def done(script: str, path: Path, *words: str) -> str:
    """What the script prints, when it and all of its processes have ended."""
    file = path.with_name("script.py")
    here = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
    file.write_text(here + script)
    return subprocess.run(
        [sys.executable, str(file), str(path), *words], capture_output=True, check=True, text=True, timeout=60
    ).stdout


@pytest.mark.skipif(sys.platform == "win32", reason="needs limits of POSIX")
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_where_the_system_refuses_as_many_processes_fewer_do_the_work_and_all_end(mixed: Path, method: str) -> None:
    if method == "spawn" and sys.implementation.name == "pypy":
        pytest.skip("its pool cannot spawn")
    count = len(alone(mixed))
    assert done(FEW_FILES, mixed, method) == f"{count}\n{14 * count}\n"


@pytest.mark.skipif(sys.platform == "win32", reason="needs signals of POSIX")
def test_an_interrupt_ends_processes_that_have_inherited_a_handler_of_sigterm(mixed: Path) -> None:
    assert done(HANDLING_SIGTERM, mixed) == "interrupted\n"
