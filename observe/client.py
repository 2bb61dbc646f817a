"""The API from the other side: one method a question, JSON as `/api/openapi.json` describes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import httpx

from observe.errors import BadRecord, Unavailable
from observe.types import Json
from observe.wire import rfc3339

__all__ = ["BadRecord", "Client", "Unavailable"]

TIMEOUT_S = 30.0
REPLAY_TIMEOUT_S = 3600.0


class Client:
    """Asks one API. Times are nanoseconds since the epoch, None = the API's default.

    Every method raises Unavailable where the API cannot be reached or cannot answer now, and BadRecord where it
    refuses the question (400) or has no such thing (404).
    """

    def __init__(self, url: str, *, timeout_s: float = TIMEOUT_S) -> None:
        self.url = url.rstrip("/")
        # Loopback and cluster addresses must not be sent to a proxy of the environment.
        self._http = httpx.Client(base_url=self.url + "/api/v1/", timeout=timeout_s, trust_env=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def health(self) -> Json:
        """Raises Unavailable while it is not ready."""
        return self._get("health")

    def incidents(
        self, *, state: str | None = None, from_ns: int | None = None, to_ns: int | None = None
    ) -> list[Json]:
        """Open before resolved, then worst first."""
        return self._list("incidents", "incidents", {"state": state, **_range(from_ns, to_ns)})

    def incident(self, incident_id: str) -> Json:
        return self._get(f"incidents/{quote(incident_id, safe='')}")

    def explain(self, incident_id: str, format: str = "markdown") -> str:
        """A text to read: markdown or html."""
        path = f"incidents/{quote(incident_id, safe='')}/explain"
        return self._ask("GET", path, params={"format": format}).text

    def explained(self, incident_id: str) -> Json:
        """The incident as its newest kept look explains it, with `looked_at`."""
        return self._get(f"incidents/{quote(incident_id, safe='')}/explain")

    def replay_of(self, incident_id: str) -> Json:
        """The diagnosis made again from its inputs: `same`, and both."""
        return self._get(f"incidents/{quote(incident_id, safe='')}/replay")

    def inputs(self, incident_id: str) -> bytes:
        """What the diagnosis was made from: a zip."""
        return self._ask("GET", f"incidents/{quote(incident_id, safe='')}/inputs").content

    def services(self, from_ns: int | None = None, to_ns: int | None = None) -> list[Json]:
        return self._list("services", "services", _range(from_ns, to_ns))

    def operations(self, service: str = "", from_ns: int | None = None, to_ns: int | None = None) -> list[Json]:
        """Operations that stand for several span names."""
        return self._list("operations", "operations", {"service": service or None, **_range(from_ns, to_ns)})

    def graph(self, at_ns: int | None = None, *, span_s: int | None = None, detail: str = "all") -> Json:
        return self._get("graph", {"at": _time(at_ns), "span_s": span_s, "detail": detail})

    def windows(
        self,
        service: str,
        operation: str = "",
        from_ns: int | None = None,
        to_ns: int | None = None,
        *,
        step_s: float | None = None,
    ) -> Json:
        question = {"service": service, "operation": operation or None, "step_s": step_s}
        return self._get("windows", question | _range(from_ns, to_ns))

    def traces(
        self,
        *,
        service: str = "",
        operation: str = "",
        min_duration_ms: float = 0.0,
        errors: bool = False,
        attributes: Mapping[str, str] | None = None,
        order: str = "newest",
        from_ns: int | None = None,
        to_ns: int | None = None,
        limit: int = 20,
    ) -> list[Json]:
        question = {
            "service": service or None,
            "operation": operation or None,
            "min_duration_ms": min_duration_ms or None,
            "errors": True if errors else None,
            "attribute": [f"{key}={value}" for key, value in (attributes or {}).items()] or None,
            "order": order,
            "limit": limit,
        }
        return self._list("traces", "traces", question | _range(from_ns, to_ns))

    def trace(self, trace_id: str) -> Json:
        return self._get(f"traces/{quote(trace_id, safe='')}")

    def metrics(self, from_ns: int | None = None, to_ns: int | None = None, *, service: str = "") -> list[Json]:
        """Names of metrics."""
        return self._list("metrics", "metrics", {"service": service or None, **_range(from_ns, to_ns)})

    def metric(
        self,
        name: str,
        from_ns: int | None = None,
        to_ns: int | None = None,
        *,
        service: str = "",
        labels: str = "",
        step_s: float | None = None,
    ) -> Json:
        """Series of one metric."""
        question = {"name": name, "service": service or None, "labels": labels or None, "step_s": step_s}
        return self._get("metrics", question | _range(from_ns, to_ns))

    def logs(
        self,
        *,
        service: str = "",
        trace_id: str = "",
        text: str = "",
        severity: str = "",
        from_ns: int | None = None,
        to_ns: int | None = None,
        limit: int = 100,
    ) -> list[Json]:
        question = {"service": service, "trace_id": trace_id, "text": text, "severity": severity}
        given = {key: value for key, value in question.items() if value}
        return self._list("logs", "logs", {**given, "limit": limit, **_range(from_ns, to_ns)})

    def gpus(self, at_ns: int | None = None) -> list[Json]:
        return self._list("gpus", "gpus", {"at": _time(at_ns)})

    def audit(self) -> Json:
        return self._get("audit")

    def slos(self) -> Json:
        """Objectives with their budgets and burn rates."""
        return self._get("slos")

    def canary(
        self, service: str, baseline: str, candidate: str, from_ns: int | None = None, to_ns: int | None = None
    ) -> Json:
        question = {"service": service, "baseline": baseline, "candidate": candidate}
        return self._get("canary", question | _range(from_ns, to_ns))

    def diagnosis(self, at_ns: int, service: str = "", to_ns: int | None = None) -> Json:
        """What changed at a moment, and why; in the form of an incident."""
        question = {"at": _time(at_ns), "service": service, "to": _time(to_ns)}
        return self._get("diagnosis", question)

    def backtest(
        self, from_ns: int, to_ns: int, labels: Sequence[Json] = (), settings: Mapping[str, Any] | None = None
    ) -> Json:
        """`labels` as the API describes them: {from, to, service, cause, name}."""
        body = {"labels": list(labels), "settings": dict(settings or {}), **_range(from_ns, to_ns)}
        answer: Json = self._ask("POST", "backtest", json=body, timeout=REPLAY_TIMEOUT_S).json()
        return answer

    def replay(self, from_ns: int, to_ns: int) -> Json:
        """Takes as long as it takes: hours of windows are read."""
        body = _range(from_ns, to_ns)
        answer: Json = self._ask("POST", "replay", json=body, timeout=REPLAY_TIMEOUT_S).json()
        return answer

    def silences(self) -> list[Json]:
        return self._list("silences", "silences", {})

    def silence(self, service: str, ends_ns: int, comment: str = "") -> Json:
        body = {"service": service, "comment": comment, "ends_at": rfc3339(ends_ns)}
        answer: Json = self._ask("POST", "silences", json=body).json()
        return answer

    def end_silence(self, silence_id: str) -> None:
        self._ask("DELETE", f"silences/{quote(silence_id, safe='')}")

    def _get(self, path: str, question: Mapping[str, Any] | None = None) -> Json:
        given = {key: value for key, value in (question or {}).items() if value is not None}
        answer: Json = self._ask("GET", path, params=given).json()
        return answer

    def _list(self, path: str, key: str, question: Mapping[str, Any]) -> list[Json]:
        found: list[Json] = self._get(path, question)[key]
        return found

    def _ask(self, method: str, path: str, **how: Any) -> httpx.Response:
        try:
            response = self._http.request(method, path, **how)
        except httpx.HTTPError as error:
            raise Unavailable(f"{self.url}: {error or type(error).__name__}; is `observe up` running?") from error
        if response.is_success:
            return response
        if response.status_code < 500:
            raise BadRecord(_detail(response))
        raise Unavailable(f"{self.url}: {_detail(response)}", retry_after_s=_retry_after_s(response))


def _range(from_ns: int | None, to_ns: int | None) -> dict[str, str | None]:
    return {"from": _time(from_ns), "to": _time(to_ns)}


def _time(time_ns: int | None) -> str | None:
    return None if time_ns is None else rfc3339(time_ns)


def _detail(response: httpx.Response) -> str:
    """What the problem says, or the status where something else answered."""
    try:
        return str(response.json()["detail"])
    except (ValueError, KeyError, TypeError):
        return f"HTTP {response.status_code} {response.reason_phrase}"


def _retry_after_s(response: httpx.Response) -> float:
    text = response.headers.get("Retry-After", "")
    return float(text) if text.isdigit() else 1.0
