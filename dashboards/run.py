"""How the pages are started, as a process of its own."""

from __future__ import annotations

import os
import sys
from pathlib import Path

APP = Path(__file__).with_name("app.py")
API_URL_VARIABLE = "OBSERVE_DASHBOARD__API_URL"
DEFAULT_API_URL = "http://127.0.0.1:8080"


def command(address: str, api_url: str) -> list[str]:
    """The command that serves the pages on host:port and asks the API at `api_url`.

    It opens no browser, watches no files and sends no usage statistics.
    """
    host, _, port = address.rpartition(":")
    options = {
        "server.address": host.strip("[]") or "127.0.0.1",
        "server.port": port,
        "server.headless": "true",
        "server.fileWatcherType": "none",
        "browser.gatherUsageStats": "false",
        "client.toolbarMode": "minimal",
        "client.showErrorDetails": "none",
        "global.developmentMode": "false",
        # Red is for what is wrong. Set for both grounds: a colour for all would also fix the ground.
        "theme.light.primaryColor": "#0072B2",
        "theme.dark.primaryColor": "#56B4E9",
    }
    flags = [f"--{name}={value}" for name, value in options.items()]
    return [sys.executable, "-m", "dashboards", "run", str(APP), *flags, "--", api_url]


def api_url() -> str:
    """The API that the pages ask: from the command line, else from the environment."""
    given = sys.argv[1] if len(sys.argv) > 1 else os.environ.get(API_URL_VARIABLE, "")
    return given or DEFAULT_API_URL
