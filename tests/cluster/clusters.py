"""Clusters of processes of this machine, for tests."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import psutil

from tests.cluster.links import Links

ROOT = Path(__file__).parents[2]
SUITE = """
description = "a network that trains in a second"
models = ["tiny"]
weights = "none"
[data]
default = "digits"
[training]
epochs = 1
[[configs]]
algorithm = "post-training"
sparsity = SPARSITY
"""
PROGRAM = [sys.executable, "-m", "tests.cluster.program"]
ON_A_MAC = [sys.executable, "-m", "tests.cluster.mac_program"]
_SECONDS = 240


class Cluster:
    """A scheduler and workers, each a process as the command line starts it; all end with this."""

    def __init__(self, folder: Path, links: Links | None = None) -> None:
        """links: that join `scheduler`, `client` and the workers by their names; None: all are this machine."""
        self.folder = folder
        self._links = links
        self.temporary = folder / "temporary"
        self.temporary.mkdir()
        self._ports: set[int] = set()
        self._pids: set[int] = set()
        self.certificates = folder / "certificates"
        self.processes: dict[str, subprocess.Popen] = {}
        self._port = 0
        self.address = self.start()

    def start(self) -> str:
        """The scheduler; its address. Again at the same port."""
        host = self._links.addresses["scheduler"] if self._links else "127.0.0.1"
        log = self._open("scheduler", "cluster", "start", "--host", host, "--port", self._port)
        found = self._wait_for("scheduler", log, r"address: (tls://[\d.]+:(\d+))")
        self._port = int(found[2])
        self.address = found[1]
        return self.address

    def join(self, name: str, *options: object, program: Sequence[str] = PROGRAM) -> None:
        """A worker. Returns when it works."""
        log = self._open(name, "cluster", "join", self.address, "--name", name, *options, program=program)
        self._wait_for(name, log, "works for")

    def client(self, *arguments: object) -> subprocess.Popen:
        told = [*map(str, arguments), "--cluster", self.address, "--certificates", str(self.certificates)]
        command = [*self._within("client"), *PROGRAM, *told]
        return subprocess.Popen(
            command, cwd=ROOT, env=self._environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )

    def call(self, *arguments: object) -> tuple[int, str, str]:
        process = self.client(*arguments)
        output, errors = process.communicate(timeout=600)
        return process.returncode, output, errors

    def worker_processes(self) -> list[int]:
        """Of all machines: the children that compute, not their nannies."""
        return [pid for process in self.processes.values() for pid in children(process.pid) if _is_python(pid)]

    def kill(self, name: str) -> None:
        """A scheduler or a machine, with no time for a word. What it has started ends by itself."""
        self._note(self.processes[name].pid)
        self.processes[name].kill()
        self.processes[name].wait()

    def left(self) -> list[str]:
        """What an ended cluster has left: processes, ports, temporary and scratch files."""
        processes = [f"process {pid}" for pid in self._pids if psutil.pid_exists(pid)]
        listening = {one.laddr.port for one in psutil.net_connections("tcp") if one.status == psutil.CONN_LISTEN}
        files = [path for folder in (self.temporary, self.folder / "scratch") for path in folder.rglob("*")]
        # Dask's own, empty, for the workers of this machine that come next.
        kept = [str(path) for path in files if path.is_file() and path.suffix not in (".lock", ".dirlock")]
        return [*processes, *(f"port {port}" for port in self._ports & listening), *kept]

    def _within(self, name: str) -> list[str]:
        return self._links.within(name) if self._links else []

    @property
    def _environment(self) -> dict[str, str]:
        return {**os.environ, "TMPDIR": str(self.temporary)}

    def _note(self, pid: int) -> None:
        """What `left` looks for later."""
        for one in (pid, *children(pid)):
            self._pids.add(one)
            with contextlib.suppress(psutil.Error):
                found = psutil.Process(one).net_connections("tcp")
                self._ports |= {each.laddr.port for each in found if each.status == psutil.CONN_LISTEN}

    def end(self) -> None:
        """Nothing of it is left, or an AssertionError says what."""
        all_ = self.processes.values()
        below = [pid for process in all_ for pid in children(process.pid)]
        for process in all_:
            self._note(process.pid)
        for process in all_:
            process.send_signal(signal.SIGTERM)
        for process in all_:
            process.wait(60)
        until = time.monotonic() + 20
        while (left := [pid for pid in below if Path(f"/proc/{pid}").exists()]) and time.monotonic() < until:
            time.sleep(0.2)
        assert left == []

    def _open(self, name: str, *arguments: object, program: Sequence[str] = PROGRAM) -> Path:
        log = self.folder / f"{name}.log"
        extra = ["--dashboard-port", "0"] if name == "scheduler" else []
        where = ["--scratch", str(self.folder / "scratch")] if name != "scheduler" else []
        with log.open("w") as file:
            self.processes[name] = subprocess.Popen(
                [
                    *self._within(name),
                    *program,
                    *map(str, arguments),
                    "--certificates",
                    str(self.certificates),
                    *extra,
                    *where,
                ],
                cwd=ROOT,
                env=self._environment,
                stdout=file,
                stderr=subprocess.STDOUT,
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            )
        return log

    def _wait_for(self, name: str, log: Path, pattern: str) -> re.Match[str]:
        until = time.monotonic() + _SECONDS
        while (found := re.search(pattern, log.read_text())) is None:
            assert self.processes[name].poll() is None, log.read_text()
            assert time.monotonic() < until, f"{name}: {log.read_text()}"
            time.sleep(0.1)
        return found


def children(pid: int) -> list[int]:
    """Processes below one, by number; none where it has ended."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            direct = [int(number) for number in task.read_text().split()]
        except OSError:
            continue
        found += [below for one in direct for below in (one, *children(one))]
    return found


def _is_python(pid: int) -> bool:
    try:
        return b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
