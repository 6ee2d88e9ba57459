"""Who competes in speed.py: this library on several interpreters, and whatever peers are installed here."""

from __future__ import annotations

import glob
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Tuple

import workloads

HERE = os.path.dirname(os.path.abspath(__file__))
Answer = Dict[str, Any]
Measure = Callable[[str, bool], Answer]  # (path, hashing)
Environment = Optional[Dict[str, str]]
WARM = 6_000_000  # packets after which PyPy has compiled what it will


class Runner(NamedTuple):
    """A contestant: `measure(path, hashing)` gives the object that runners.py prints."""

    name: str
    measure: Measure
    delivers: bool = True  # False: it only decodes, so there are no bytes to check
    v4_only: bool = False
    slow: bool = False  # a thousand packets per second: given a fiftieth of the workload
    hungry: bool = False  # keeps what it reads: not given the largest workload


def command(*words: str, environment: Environment = None) -> Measure:
    """A program that prints its answer as JSON in the last line."""

    def measure(path: str, hashing: bool) -> Answer:
        extra = ["--hash"] if hashing else []
        done = subprocess.run(
            [*words, *extra, path], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment, check=True
        )
        return dict(json.loads(done.stdout.splitlines()[-1]))

    return measure


def python(interpreter: str, runner: str, environment: Environment = None, warm: int = 0) -> Measure:
    words = [interpreter, os.path.join(HERE, "runners.py"), runner, "--warm", str(warm)]
    return command(*words, environment=environment)


def has_module(interpreter: str, name: str, environment: Environment = None) -> bool:
    words = [interpreter, "-c", f"import {name}"]
    return subprocess.run(words, stderr=subprocess.DEVNULL, env=environment, check=False).returncode == 0


def shelf_environment(folder: str) -> Dict[str, str]:
    """Another interpreter sees this library and the two pure Python packages it needs, and nothing else of this one."""
    import dpkt
    import sortedcontainers

    import tcpstitch

    shelf = os.path.join(folder, "shelf")
    os.makedirs(shelf, exist_ok=True)
    for module in (dpkt, sortedcontainers, tcpstitch):
        source = os.path.dirname(os.path.abspath(str(module.__file__)))
        link = os.path.join(shelf, os.path.basename(source))
        if os.path.islink(link):
            os.remove(link)
        os.symlink(source, link)
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    return {**environment, "PYTHONPATH": shelf, "PYTHONPYCACHEPREFIX": os.path.join(folder, "bytecode")}


def find_interpreter(name: str) -> Optional[str]:
    """On PATH (a pyenv shim of a version that is not selected does not run), or among pyenv's versions."""
    root = os.environ.get("PYENV_ROOT", os.path.expanduser("~/.pyenv"))
    for path in [shutil.which(name), *sorted(glob.glob(os.path.join(root, "versions", "*", "bin", name)))]:
        if path and subprocess.run([path, "-c", ""], stderr=subprocess.DEVNULL, check=False).returncode == 0:
            return path
    return None


def build_go(engine: str, folder: str) -> Optional[str]:
    """The peer program of a gopacket engine, or None where Go or the packages are missing."""
    go = shutil.which("go")
    target = os.path.join(folder, f"gopacket-{engine}")
    sources = [os.path.join(HERE, "peers", name) for name in ("capture.go", f"{engine}.go")]
    if go is None:
        return None
    environment = {"GO111MODULE": "off", "GOPATH": "/usr/share/gocode", "GOCACHE": os.path.join(folder, "go-cache")}
    words = [go, "build", "-o", target, *sources]
    done = subprocess.run(words, env={**os.environ, **environment}, stderr=subprocess.DEVNULL, check=False)
    return target if done.returncode == 0 else None


def timed(words: List[str], **options: Any) -> Answer:
    """A foreign program as a whole: its start-up counts, so short captures do it wrong."""
    started = time.perf_counter()
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **options)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = status
    if status:
        raise subprocess.CalledProcessError(status, words)
    return {"seconds": time.perf_counter() - started, "peak_kib": usage.ru_maxrss, "start_kib": 0}


def tcpflow(path: str, hashing: bool) -> Answer:
    """tcpflow to files in memory. With hashing the files' names and bytes become the digest."""
    base = "/dev/shm" if os.path.isdir("/dev/shm") else None
    with tempfile.TemporaryDirectory(dir=base) as folder:
        answer = timed(["tcpflow", "-q", "-o", folder, "-r", path])
        if hashing:
            answer["digest"] = digest_of_files(folder)
    return answer


def digest_of_files(folder: str) -> str:
    digest = workloads.Digest()
    for entry in os.scandir(folder):
        ends = [end.split(".") for end in entry.name.split("-")]
        if len(ends) == 2 and all(len(end) == 5 and all(part.isdigit() for part in end) for end in ends):
            key = b"".join(bytes(int(part) for part in end[:4]) for end in ends)
            key += b"".join(int(end[4]).to_bytes(2, "big") for end in ends)
            with open(entry.path, "rb") as file:
                digest.update(key, file.read())
    return digest.hexdigest()


def tshark(path: str, hashing: bool) -> Answer:
    """tshark printing the payload of each segment: no reassembly, no digest."""
    return timed(["tshark", "-n", "-r", path, "-T", "fields", "-e", "tcp.stream", "-e", "tcp.payload"])


def of_the_system(environment: Environment) -> List[Runner]:
    """dpkt and this library on the CPython that the system came with, if that is another: distributions as a rule
    build theirs with optimisation by profile and at link time, which one built from source has only if asked for."""
    path = shutil.which("python3", path="/usr/bin")
    base = os.path.realpath(getattr(sys, "_base_executable", sys.executable))
    if path is None or os.path.realpath(path) == base:
        return []
    code = "import platform, sys; sys.version_info < (3, 9) or print(platform.python_version())"
    version = subprocess.run([path, "-c", code], stdout=subprocess.PIPE, check=True).stdout.decode().strip()
    build = f"the system's CPython {version}"
    rows = (("dpkt, read and decode", "dpkt"), ("tcpstitch run", "run"), ("tcpstitch assemble", "assemble"))
    return [
        Runner(f"{name}, {build}", python(path, runner, environment), delivers=runner != "dpkt")
        for name, runner in rows
        if version
    ]


def own(folder: str) -> Tuple[List[Runner], List[str]]:
    """This library on this interpreter, on the system's, on CPython 3.13 and on PyPy, there also when it is warm."""
    me, environment = sys.executable, shelf_environment(folder)
    found = [Runner("tcpstitch run", python(me, "run")), Runner("tcpstitch assemble", python(me, "assemble"))]
    found += of_the_system(environment)
    missing = []
    newer = find_interpreter("python3.13")
    if newer:
        found.append(Runner("tcpstitch run, CPython 3.13", python(newer, "run", environment)))
    else:
        missing.append("CPython 3.13")
    pypy = find_interpreter("pypy3")
    if pypy:
        found.append(Runner("tcpstitch run, PyPy", python(pypy, "run", environment)))
        for name in ("run", "assemble"):
            found.append(Runner(f"tcpstitch {name}, PyPy, warm", python(pypy, name, environment, warm=WARM)))
    else:
        missing.append("PyPy")
    return found, missing


def peers(folder: str) -> Tuple[List[Runner], List[str]]:
    """The others that can run here, and those that are missing."""
    me = sys.executable
    found: List[Runner] = []
    missing: List[str] = []
    for engine in ("reassembly", "tcpassembly"):
        program = build_go(engine, folder)
        if program is None:
            missing.append(f"gopacket {engine}")
            continue
        for decode in ("lazy", "parser"):
            found.append(Runner(f"gopacket {engine}, {decode}", command(program, "-decode", decode)))
    for name, measure in (("tcpflow", tcpflow), ("tshark", tshark)):
        if shutil.which(name):
            own_files = name == "tcpflow"
            found.append(Runner(name, measure, delivers=own_files, v4_only=own_files, hungry=True))
        else:
            missing.append(name)
    for name, module, runner in (("scapy TCPSession", "scapy.all", "scapy"), ("pypcapkit", "pcapkit", "pypcapkit")):
        if has_module(me, module):
            found.append(Runner(name, python(me, runner), delivers=runner == "pypcapkit", slow=True))
        else:
            missing.append(name)
    return found, missing


def contestants(folder: str) -> Tuple[List[Runner], List[str]]:
    """Who can run here, dpkt first, and who is missing."""
    me = sys.executable
    base = [
        Runner("dpkt, read and decode", python(me, "dpkt"), delivers=False),
        Runner("dpkt and a dict of lists", python(me, "dpkt-dict"), hungry=True),
        Runner("plain dict, count only", python(me, "plain-dict"), delivers=False, v4_only=True),
    ]
    mine, absent = own(folder)
    others, missing = peers(folder)
    return base + mine + others, absent + missing
