"""Receivers of alerts over HTTP. One attempt each; `deliver` tries again."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import httpx
from standardwebhooks.webhooks import Webhook as Signer

from observe.alert import payloads
from observe.alert.decide import name_of
from observe.errors import BadRecord, Misconfigured, Unavailable
from observe.interfaces import Notifier
from observe.settings import AlertSettings, WebhookSettings
from observe.types import Alert, Json

Body = Callable[[Alert], Json]
Accepted = Callable[[httpx.Response], bool]
RETRY_AFTER_MAX_S = 3600.0


class Webhook:
    """Posts one JSON body per alert, signed where there is a secret to sign with.

    Redirects count as failures: a signed body, or a token in a URL, is meant for the one host that was named.
    """

    def __init__(
        self,
        name: str,
        url: str,
        body: Body,
        *,
        timeout_s: float,
        signer: Signer | None = None,
        accepted: Accepted = lambda response: True,
    ) -> None:
        self._name, self._url, self._body = name, url, body
        self._signer, self._accepted = signer, accepted
        self._client = httpx.Client(timeout=timeout_s, follow_redirects=False)

    @property
    def name(self) -> str:
        return self._name

    def notify(self, alert: Alert) -> None:
        raw = json.dumps(self._body(alert), ensure_ascii=False, separators=(",", ":"))
        headers = {"content-type": "application/json", "user-agent": "observe"} | self._signature(alert, raw)
        try:
            response = self._client.post(self._url, content=raw.encode(), headers=headers)
        except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
            raise BadRecord(f"{self._name}: the URL cannot be used ({type(error).__name__})") from None
        except httpx.HTTPError as error:
            # The message of an httpx error may hold the URL, and with it a token.
            raise Unavailable(f"{self._name}: {type(error).__name__}") from None
        self._judge(response)

    def _signature(self, alert: Alert, raw: str) -> dict[str, str]:
        if self._signer is None:
            return {}
        now, id_ = datetime.now(UTC), delivery_id(alert)
        return {
            "webhook-id": id_,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": self._signer.sign(id_, now, raw),
        }

    def _judge(self, response: httpx.Response) -> None:
        code = response.status_code
        if response.is_success and self._accepted(response):
            return
        if code == 429 or code >= 500:
            raise Unavailable(f"{self._name}: status {code}", retry_after_s=retry_after_s(response))
        raise BadRecord(f"{self._name}: status {code}, which will not change by trying again")

    def close(self) -> None:
        self._client.close()


def delivery_id(alert: Alert) -> str:
    """The same for every attempt at one delivery, so that receivers can drop doubles; a repeat is another delivery."""
    again = f"-{alert.incident.last_seen_ns}" if alert.reason == "repeat" else ""
    return f"{alert.incident.id}-{alert.incident.version}{again}"


def retry_after_s(response: httpx.Response, default_s: float = 1.0) -> float:
    """Seconds that Retry-After asks for, given as seconds or as a date; bounded to an hour."""
    value = response.headers.get("retry-after", "")
    try:
        return min(max(float(value), 0.0), RETRY_AFTER_MAX_S)
    except ValueError:
        pass
    try:
        wait_s = (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds()
    except (ValueError, TypeError):
        return default_s
    return min(max(wait_s, 0.0), RETRY_AFTER_MAX_S)


def alertmanager_webhook(settings: WebhookSettings, external_url: str) -> Webhook:
    """Alertmanager v4; signed in addition where a secret is set (receivers ignore headers they do not know)."""
    name = name_of(settings)
    return Webhook(
        name,
        settings.url,
        lambda alert: payloads.alertmanager(alert, name, external_url),
        timeout_s=settings.timeout_s,
        signer=_signer(settings) if settings.secret else None,
    )


def standard_webhook(settings: WebhookSettings, external_url: str) -> Webhook:
    """Standard Webhooks, always signed."""
    return Webhook(
        name_of(settings),
        settings.url,
        lambda alert: payloads.standard(alert, external_url),
        timeout_s=settings.timeout_s,
        signer=_signer(settings),
    )


def slack_webhook(settings: WebhookSettings, external_url: str) -> Webhook:
    """Slack, which answers 200 with the body `ok`, and with something else where it did not post."""
    return Webhook(
        name_of(settings),
        settings.url,
        lambda alert: payloads.slack(alert, external_url),
        timeout_s=settings.timeout_s,
        accepted=lambda response: response.text.strip() == "ok",
    )


def pagerduty_webhook(settings: WebhookSettings, external_url: str) -> Webhook:
    """PagerDuty Events v2; `secret` is the routing key."""
    if not settings.secret:
        raise Misconfigured(f"alert.webhooks: {name_of(settings)} is pagerduty and needs its routing key as `secret`")
    return Webhook(
        name_of(settings),
        settings.url,
        lambda alert: payloads.pagerduty(alert, settings.secret, external_url),
        timeout_s=settings.timeout_s,
    )


FORMATS: dict[str, Callable[[WebhookSettings, str], Webhook]] = {
    "alertmanager": alertmanager_webhook,
    "standard": standard_webhook,
    "slack": slack_webhook,
    "pagerduty": pagerduty_webhook,
}


def notifiers_of(settings: AlertSettings) -> list[Notifier]:
    """One notifier for each webhook. Raises Misconfigured for a missing or malformed secret and for equal names."""
    # httpx logs whole URLs at INFO, and the URL of a chat webhook is its password.
    logging.getLogger("httpx").setLevel(logging.WARNING)
    names = [name_of(webhook) for webhook in settings.webhooks]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise Misconfigured(f"alert.webhooks: {', '.join(twice)} stands there twice; give each its own `name`")
    return [FORMATS[webhook.format](webhook, settings.external_url) for webhook in settings.webhooks]


def _signer(settings: WebhookSettings) -> Signer:
    try:
        return Signer(settings.secret)
    except Exception as error:  # the library raises its own and base64's
        raise Misconfigured(
            f"alert.webhooks: {name_of(settings)} needs a `secret` of the form whsec_<base64> to sign with"
        ) from error
