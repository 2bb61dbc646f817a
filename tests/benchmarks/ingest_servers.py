"""`observe bench ingest` on a broker and a server started here: python -m tests.benchmarks.ingest_servers"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from tests.fixtures.clickhouse import ClickHouseServer, library
from tests.fixtures.kafka import KafkaBroker, resolve


def main(arguments: list[str]) -> int:
    resolve()
    with tempfile.TemporaryDirectory() as folder:
        broker = KafkaBroker(Path(folder) / "kafka").start()
        server = ClickHouseServer(Path(folder) / "clickhouse", library())
        server.start()
        try:
            command = [sys.executable, "-m", "observe", "bench", "ingest", "--json"]
            command += ["--stream", f"kafka://{broker.bootstrap}", "--store", f"{server.url}/bench"]
            command += ["--server", f"kafka={broker.pid}", "--server", f"clickhouse={server.pid}"]
            return subprocess.call([*command, *arguments])
        finally:
            server.stop()
            broker.stop()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
