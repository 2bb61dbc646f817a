"""The ways to run observe, as real processes that can be killed, frozen and starved."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from observe.types import Signal
from tests.faults.evidence import of_kafka, of_server
from tests.faults.load import Sender, over_grpc, over_http, to_kafka
from tests.fixtures.clickhouse import ROOT, ClickHouseServer, library
from tests.fixtures.kafka import KafkaBroker, resolve
from tests.fixtures.ports import free_ports
from tests.fixtures.processes import Command, wait_for

READY_S = 300.0
PARTITIONS = 3
WRITERS = 3
DISK_MIB = 512
LEFT = 3 * 2**18
CONFIG = """
[kafka]
partitions = {partitions}
[kafka.client]
"session.timeout.ms" = "3000"
"heartbeat.interval.ms" = "500"
[local]
partitions = {partitions}
[writer]
batch_max_records = 40
batch_max_age_s = 1.0
[collect.gpu]
enabled = false
"""


class Deployment:
    """`stream` is local or kafka, `store` is chdb or clickhouse. chDB runs in the process of its writer, so there
    everything is `observe up`; with a server there are two receivers and three writers of their own."""

    def __init__(self, folder: Path, stream: str, store: str, *, disks: bool = True) -> None:
        self.folder = folder
        self._killed: list[str] = []
        self._exit = ExitStack()
        self.disks: dict[str, Path] = {}
        for name in ("stream", "store") if disks else ():
            self._disk(name)
        (folder / "observe.toml").write_text(CONFIG.format(partitions=PARTITIONS))
        self.broker = self._broker() if stream == "kafka" else None
        self.server = self._server() if store == "clickhouse" else None
        self.stream = f"kafka://{self.broker.bootstrap}" if self.broker else f"local://{folder / 'stream' / 'log'}"
        self.store = f"{self.server.url}/faults" if self.server else f"chdb://{folder / 'store' / 'chdb'}"
        self.urls = ("--stream", self.stream, "--store", self.store)
        self._arguments: dict[str, tuple[str, ...]] = {}
        self.processes: dict[str, Command] = {}
        self.grpc: list[str] = []
        self.http: list[str] = []
        try:
            self._start()
        except BaseException:
            self.close()
            raise

    def _broker(self) -> KafkaBroker:
        resolve()
        broker = KafkaBroker(self.folder / "kafka").start()
        self._exit.callback(broker.stop)
        return broker

    def _server(self) -> ClickHouseServer:
        server = ClickHouseServer(self.folder / "store" / "server", library())
        server.start()
        self._exit.callback(server.kill9)
        return server

    def _start(self) -> None:
        self._exit.callback(self._kill_all)
        if self.server is None:
            grpc, http, api = (f"127.0.0.1:{port}" for port in free_ports(3))
            self._add("up", "up", "--no-dashboard", "--data", str(self.folder / "data"), "--api", api,
                      "--otlp-grpc", grpc, "--otlp-http", http)  # fmt: skip
            self.grpc, self.http = [grpc], [http]
        else:
            subprocess.run([sys.executable, "-m", "observe", "migrate", *self.urls], cwd=self.folder, check=True,
                           capture_output=True, timeout=300)  # fmt: skip
            for n in range(2):
                grpc, http = (f"127.0.0.1:{port}" for port in free_ports(2))
                self.grpc.append(grpc)
                self.http.append(http)
                self._add(f"receiver-{n}", "collect", "otlp", "--set", f"collect.otlp.grpc={grpc}",
                          "--set", f"collect.otlp.http={http}")  # fmt: skip
            for n in range(WRITERS):
                self._add(f"writer-{n}", "write")
        for address in self.http:
            wait_for(f"a receiver at {address}", partial(_listens, address), READY_S)

    def _add(self, name: str, *arguments: str) -> None:
        self._arguments[name] = arguments
        self.start(name)

    @property
    def kills(self) -> int:
        return len(self._killed)

    # ── what happens to it ──────────────────────────────────────────────────────────────────────────────────────────

    def start(self, name: str) -> None:
        self.processes[name] = Command(self.folder, "observe", *self._arguments[name], *self.urls)

    def kill(self, name: str) -> None:
        self.processes.pop(name).kill9()
        self._killed.append(name)

    def replace(self, name: str) -> None:
        """An orderly stop and a new one, as in a rollout."""
        self.stop(name)
        self.start(name)

    def wait_until_ready(self, name: str) -> None:
        command = self.processes[name]
        wait_for(f"{name} to be ready", lambda: command.process.poll() is not None or command.is_ready(), READY_S)

    def stop(self, name: str) -> None:
        """SIGTERM once it is up; it must end well."""
        self.wait_until_ready(name)
        command = self.processes[name]
        code = command.stop(120.0)  # sieges run on machines that have other things to do, too
        assert code == 0, f"{name} ended with {code}:\n{command.tail()}"
        del self.processes[name]

    def kill_store(self, away_s: float = 0.0) -> None:
        assert self.server is not None
        self.server.kill9()
        self._killed.append("store")
        time.sleep(away_s)
        self.server.start()

    def kill_broker(self, away_s: float = 0.0) -> None:
        assert self.broker is not None
        self.broker.kill9()
        self._killed.append("broker")
        time.sleep(away_s)
        self.broker.start()

    @contextlib.contextmanager
    def frozen(self, name: str) -> Iterator[None]:
        """The process stands still, and believes afterwards that no time has passed."""
        process = self.processes[name].process
        process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            process.send_signal(signal.SIGCONT)

    @contextlib.contextmanager
    def no_space(self, name: str) -> Iterator[None]:
        """Hardly a byte is left on the disk meanwhile, and none where observe itself must look after that.

        The server here is made from libchdb, which ignores writes that fail: what it had begun to write would be cut
        off without a word. A real one refuses. So it is left with less than the mebibyte that it wants to reserve
        before it writes a part, and with no merge under way: then it refuses, too.
        """
        left = LEFT if name == "store" and self.server is not None else 0
        filler = self.disks[name] / "filler"
        with self._without_merges() if left else contextlib.nullcontext():
            for _ in range(3):  # what is freed meanwhile is taken as well
                free = os.statvfs(self.disks[name])
                with filler.open("ab") as out, contextlib.suppress(OSError):
                    os.posix_fallocate(out.fileno(), 0, filler.stat().st_size + free.f_bavail * free.f_frsize - left)
                time.sleep(0.05)
            try:
                yield
            finally:
                filler.unlink()

    @contextlib.contextmanager
    def _without_merges(self) -> Iterator[None]:
        self._tell("SYSTEM STOP MERGES")
        time.sleep(0.5)  # those under way end at their next block
        try:
            yield
        finally:
            self._tell("SYSTEM START MERGES")

    def _tell(self, statement: str) -> None:
        assert self.server is not None
        request = urllib.request.Request(f"http://127.0.0.1:{self.server.port}/", statement.encode())
        with urllib.request.urlopen(request, timeout=60) as answer:
            answer.read()

    def _disk(self, name: str) -> None:
        """A folder on a small disk of its own, where this user may mount one."""
        folder = self.folder / name
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m", "tmpfs", str(folder)]
        with contextlib.suppress(FileNotFoundError):
            if subprocess.run(command, capture_output=True, check=False).returncode == 0:
                self.disks[name] = folder
                self._exit.callback(subprocess.run, ["umount", "-l", str(folder)], check=False)

    def names(self, kind: str) -> list[str]:
        return sorted(name for name in self._arguments if name.startswith(kind))

    def check_alive(self) -> None:
        """A process that ended by itself is a failure, whatever the books say."""
        for name, command in self.processes.items():
            assert command.process.poll() is None, f"{name} ended by itself:\n{command.tail()}"

    # ── what it says ────────────────────────────────────────────────────────────────────────────────────────────────

    def senders(self) -> list[Callable[[ExitStack], Sender]]:
        ways = [over_http(self.http), over_grpc(self.grpc), over_http(self.http[::-1])]
        return [*ways, to_kafka(self.broker.bootstrap)] if self.broker else ways

    def audit(self) -> Any:
        """As an operator asks: the command by itself, or the process that owns the store."""
        where = ("--api", f"http://{self._api()}") if self.server is None and "up" in self.processes else self.urls
        command = [sys.executable, "-m", "observe", "audit", "--json", *where]
        done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode in (0, 1), done.stderr
        assert done.stdout, done.stderr  # an error that nobody expected ends with 1, too
        return json.loads(done.stdout)

    def stored(self) -> Any:
        """Needs the store for itself where it is chDB."""
        command = [sys.executable, "-m", "tests.faults.stored", self.store]
        here = os.environ | {"PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            command, cwd=self.folder, env=here, capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def evidence(self, wrong: Mapping[Signal, Sequence[int]]) -> Mapping[str, Any]:
        """Of items that are lost or doubled, where the parts can still be asked."""
        if self.broker is None:
            return {"items": wrong}
        records = of_kafka(self.broker.bootstrap, wrong)
        return {"records": records, **(of_server(self.store, records) if self.server else {})}

    def memory(self) -> Mapping[str, int]:
        """Peak resident bytes of each process of ours, in MiB."""
        return {name: _peak_mib(command.process.pid) for name, command in self.processes.items()}

    def tails(self) -> str:
        return "\n".join(f"== {name}\n{command.tail(1500)}" for name, command in self.processes.items())

    def _api(self) -> str:
        arguments = self._arguments["up"]
        return arguments[arguments.index("--api") + 1]

    def stop_all(self) -> None:
        for name in list(self.processes):
            self.stop(name)

    def close(self) -> None:
        self._exit.close()

    def _kill_all(self) -> None:
        for command in self.processes.values():
            with contextlib.suppress(ProcessLookupError):
                command.process.send_signal(signal.SIGCONT)
                command.kill9()


def _listens(address: str) -> bool:
    import httpx

    with contextlib.suppress(httpx.HTTPError):
        return httpx.get(f"http://{address}/", trust_env=False, timeout=5).status_code > 0
    return False


def _peak_mib(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) // 1024
    return 0
