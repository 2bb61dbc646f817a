"""One Prometheus endpoint: fetching, and remembering how it is."""

from __future__ import annotations

import logging
import time
from typing import Final
from urllib.parse import SplitResult, urlsplit

import httpx
from prometheus_client import Metric

from collectors.loop import backoff_s
from collectors.prometheus import StartTimes, parse

log = logging.getLogger(__name__)

# The only form in which names reach us unaltered: in OpenMetrics the Python client writes vllm:x as vllm_x, and the Go
# client appends _total to counters that have none.
ACCEPT: Final = "text/plain;version=0.0.4,*/*;q=0.1"
MAX_BODY_BYTES: Final = 32 * 2**20
TIMEOUT_S: Final = 10.0


class Endpoint:
    """A URL that is scraped again and again. One that fails is asked less and less often, up to once a minute."""

    def __init__(self, url: str, interval_s: float) -> None:
        self.url = url
        self.address: SplitResult = urlsplit(url)
        self.starts = StartTimes()
        self._interval_s = interval_s
        self._failures = 0
        self._not_before_s = 0.0  # time.monotonic()
        self._client = httpx.Client(
            timeout=min(TIMEOUT_S, interval_s), headers={"Accept": ACCEPT}, follow_redirects=True, trust_env=False
        )

    @property
    def instance(self) -> str:
        """host:port, as Prometheus labels it."""
        port = self.address.port or (443 if self.address.scheme == "https" else 80)
        return f"{self.address.hostname}:{port}"

    def scrape(self) -> list[Metric] | None:
        """What the endpoint exposes; None where it is down, or was lately and is not asked yet. Never raises."""
        if time.monotonic() < self._not_before_s:
            return None
        try:
            families = parse(*self._fetch())
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
            self._failed(error)
            return None
        if self._failures:
            log.info("%s: answers again", self.url)
        self._failures, self._not_before_s = 0, 0.0
        return families

    def close(self) -> None:
        self._client.close()

    def _fetch(self) -> tuple[str, str]:
        deadline_s = time.monotonic() + 2 * TIMEOUT_S  # the client's timeout is per read, and a server may drip
        with self._client.stream("GET", self.url) as response:
            response.raise_for_status()
            body = bytearray()
            for chunk in response.iter_bytes():
                body += chunk
                if len(body) > MAX_BODY_BYTES:
                    raise ValueError(f"more than {MAX_BODY_BYTES} bytes")
                if time.monotonic() > deadline_s:
                    raise ValueError(f"not complete after {2 * TIMEOUT_S:.0f} s")
            return body.decode("utf-8"), response.headers.get("content-type", "")

    def _failed(self, error: Exception) -> None:
        self._failures += 1
        # Half an interval early, so that the next look is not missed by a millisecond.
        self._not_before_s = time.monotonic() + backoff_s(self._interval_s, self._failures) - self._interval_s / 2
        if self._failures == 1:
            log.warning("%s cannot be scraped: %s", self.url, error or type(error).__name__)
