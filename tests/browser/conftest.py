"""The real pages on the real API on a chDB store that holds the fleet, and Chromium to look at them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from dashboards.run import command
from tests.fixtures.ports import free_port

READY_S = 180.0
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip


@dataclass(frozen=True)
class Site:
    """Addresses of the pages and of their API."""

    pages: str
    api: str


def wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + READY_S
    while True:
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{url} did not answer (exit code {process.poll()})") from None
            time.sleep(0.2)


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Fleet, store and API in one process, the pages in another."""
    folder: Path = tmp_path_factory.mktemp("site")
    api_port, page_port = free_port(), free_port()
    api = f"http://127.0.0.1:{api_port}"
    environment = os.environ | {"HOME": str(folder)}  # Streamlit reads and writes settings there
    started = [
        subprocess.Popen([sys.executable, "-m", "tests.browser.serve", str(folder / "store"), str(api_port)]),
        subprocess.Popen(command(f"127.0.0.1:{page_port}", api), cwd=folder, env=environment),
    ]
    try:
        wait_for(f"{api}/api/v1/health", started[0])
        wait_for(f"http://127.0.0.1:{page_port}/_stcore/health", started[1])
        yield Site(f"http://127.0.0.1:{page_port}", api)
    finally:
        for process in started:
            process.terminate()
        for process in started:
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@pytest.fixture(scope="session")
def chromium() -> str:
    """Where Chromium is; without it the test is skipped, but in CI it fails."""
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        message = "Chromium is not installed (Debian: apt-get install chromium)"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    return found
