"""The read API: what the store knows, over HTTP, by the names of `/api/openapi.json`."""

from observe.api.app import create_app
from observe.api.server import Server, serve

__all__ = ["Server", "create_app", "serve"]
