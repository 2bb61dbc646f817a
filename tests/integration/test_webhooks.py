"""Alerts over real HTTP, to receivers that fail in all the ways that receivers do."""

from __future__ import annotations

import base64
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from observe.alert.deliver import Backoff, Delivered, Deliverer
from observe.alert.lifecycle import step
from observe.alert.webhooks import notifiers_of
from observe.errors import BadRecord, Misconfigured, ObserveError, Unavailable
from observe.settings import AlertSettings, WebhookSettings
from observe.types import Alert, CauseKind, Incident, State
from observe.wire import incident_from_json, incident_json
from tests.unit.alert_parts import at, cause, diagnosis, shift

SECRET = "whsec_" + base64.b64encode(b"observe tests sign with this key").decode()
QUICK = Backoff(first_s=0.02, max_s=0.1)


@dataclass
class Receiver:
    """A server that answers by a script (status, headers, body), 200 `ok` after its end; what it got is kept."""

    script: list[tuple[int, dict[str, str], str]] = field(default_factory=list)
    delay_s: float = 0.0
    got: list[tuple[float, dict[str, str], bytes]] = field(default_factory=list)
    url: str = ""

    def bodies(self) -> list[dict[str, Any]]:
        return [json.loads(body) for _, _, body in self.got]


@contextmanager
def serving(receiver: Receiver, port: int = 0) -> Iterator[Receiver]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            receiver.got.append((time.monotonic(), {k.lower(): v for k, v in self.headers.items()}, body))
            time.sleep(receiver.delay_s)
            status, headers, text = receiver.script.pop(0) if receiver.script else (200, {}, "ok")
            self.send_response(status)
            for key, value in headers.items():
                self.send_header(key, value)
            self.send_header("content-length", str(len(text)))
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    receiver.url = f"http://127.0.0.1:{server.server_port}/hook/T0KEN"
    try:
        yield receiver
    finally:
        server.shutdown()
        server.server_close()
        thread.join(60)


def incident(version: int = 2, name: str = "web") -> Incident:
    seen = [diagnosis([shift(name)], [cause("llm", CauseKind.GPU, "GPU-3", path=(name, "llm"))])]
    settings = AlertSettings(for_s=10, keep_firing_for_s=60)
    [pending] = step([], seen, at(0), settings)
    [firing] = step([pending], seen, at(10), settings)
    return replace(firing, version=version)


def ended(firing: Incident) -> Incident:
    return replace(firing, state=State.RESOLVED, resolved_ns=at(90), version=firing.version + 1)


def settings_of(*receivers: Receiver, **more: Any) -> AlertSettings:
    hooks = tuple(WebhookSettings(url=r.url, name=f"r{n}", **more) for n, r in enumerate(receivers))
    return AlertSettings(webhooks=hooks, external_url="http://observe.example")


class Telling(Deliverer):
    """A deliverer that knows its settings, to keep the tests short."""

    settings = AlertSettings()

    def say(self, incidents: Sequence[Incident], notified: Mapping[tuple[str, str], int], now_ns: int) -> int:
        return self.tell(incidents, notified, now_ns, self.settings)


@contextmanager
def delivering(
    settings: AlertSettings, saved: dict[tuple[str, str], int] | None = None, save: Delivered | None = None
) -> Iterator[Telling]:
    notifiers = notifiers_of(settings)
    book = {} if saved is None else saved

    def keep(id_: str, receiver: str, version: int) -> None:
        book[id_, receiver] = version

    delivery = Telling(notifiers, save or keep, backoff=QUICK)
    delivery.settings = settings
    delivery.start()
    try:
        yield delivery
    finally:
        delivery.stop()
        for notifier in notifiers:
            notifier.close()  # type: ignore[attr-defined]


def eventually(condition: Callable[[], bool], timeout_s: float = 60.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


def test_alertmanager_body_keeps_one_identity_from_firing_to_resolved() -> None:
    with serving(Receiver()) as receiver:
        [notifier] = notifiers_of(settings_of(receiver))
        firing = incident()
        notifier.notify(Alert(firing, "first"))
        notifier.notify(Alert(replace(firing, causes=(cause("db"),), version=3), "cause_changed"))
        notifier.notify(Alert(ended(firing), "resolved"))
        notifier.close()  # type: ignore[attr-defined]
    first, changed, over = receiver.bodies()
    assert (first["version"], first["status"], over["status"]) == ("4", "firing", "resolved")
    assert first["groupKey"] == changed["groupKey"] == over["groupKey"]
    assert len({body["alerts"][0]["fingerprint"] for body in (first, changed, over)}) == 1
    assert len(first["alerts"][0]["fingerprint"]) == 16
    assert first["alerts"][0]["endsAt"] == "0001-01-01T00:00:00Z"
    assert over["alerts"][0]["endsAt"] == "2023-11-14T22:14:50.000Z"
    assert first["commonLabels"] == {
        "alertname": "LatencyShifted",
        "incident": firing.id,
        "severity": "critical",
        "service": "web",
        "operation": "GET /",
        "cause": "llm",
        "cause_kind": "gpu",
        "cause_resource": "GPU-3",
    }
    assert first["commonAnnotations"]["summary"] == "web P99 400 ms → 1.9 s: llm, GPU-3 (91 % of the rise)"
    assert first["commonAnnotations"]["dashboard"] == f"http://observe.example/?incident={firing.id}"
    assert (first["notification_reason"], over["notification_reason"]) == ("first notification", "all alerts resolved")


def test_standard_webhook_is_signed_and_carries_the_incident() -> None:
    with serving(Receiver(script=[(503, {}, "")])) as receiver:
        settings = settings_of(receiver, format="standard", secret=SECRET)
        with delivering(settings) as delivery:
            delivery.say([incident()], {}, at(10))
            eventually(lambda: len(receiver.got) == 2)
    (_, headers, body), (_, headers_again, body_again) = receiver.got
    message = Webhook(SECRET).verify(body, headers)
    assert body == body_again
    assert headers["webhook-id"] == headers_again["webhook-id"], "an attempt more is no message more"
    assert message["type"] == "incident.firing"
    assert incident_from_json(message["data"]) == incident_from_json(incident_json(incident()))
    with pytest.raises(WebhookVerificationError):
        Webhook(SECRET).verify(body.replace(b"web", b"wet"), headers)


def test_slack_says_ok_in_the_body_or_did_not_post() -> None:
    with serving(Receiver(script=[(200, {}, "invalid_blocks")])) as receiver:
        [notifier] = notifiers_of(settings_of(receiver, format="slack"))
        alert = Alert(replace(incident(), title="a <b> & " + "c" * 200), "first")
        with pytest.raises(BadRecord):
            notifier.notify(alert)
        notifier.notify(alert)
        notifier.close()  # type: ignore[attr-defined]
    body = receiver.bodies()[0]
    assert body["text"].startswith("Firing (critical): a &lt;b&gt; &amp; ccc")
    assert len(body["blocks"][0]["text"]["text"]) == 150
    assert len(body["blocks"][2]["fields"]) <= 10


def test_pagerduty_triggers_and_resolves_under_one_key() -> None:
    with serving(Receiver(script=[(202, {}, "{}"), (202, {}, "{}")])) as receiver:
        [notifier] = notifiers_of(settings_of(receiver, format="pagerduty", secret="R" * 32))
        long = replace(incident(), title="t" * 3000)
        notifier.notify(Alert(long, "first"))
        notifier.notify(Alert(ended(long), "resolved"))
        notifier.close()  # type: ignore[attr-defined]
    trigger, resolve = receiver.bodies()
    assert (trigger["event_action"], resolve["event_action"]) == ("trigger", "resolve")
    assert trigger["dedup_key"] == resolve["dedup_key"]
    assert len(trigger["payload"]["summary"]) == 1024
    assert trigger["payload"]["source"] == "web"
    assert trigger["routing_key"] == resolve["routing_key"] == "R" * 32


@pytest.mark.parametrize(
    ("status", "headers", "error", "retry_after_s"),
    [
        (500, {}, Unavailable, 1.0),
        (503, {"retry-after": "7"}, Unavailable, 7.0),
        (429, {"retry-after": "99999"}, Unavailable, 3600.0),
        (429, {"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, Unavailable, 0.0),
        (429, {"retry-after": "soon"}, Unavailable, 1.0),
        (400, {}, BadRecord, None),
        (404, {}, BadRecord, None),
        (410, {}, BadRecord, None),
        (302, {"location": "http://127.0.0.1:9/elsewhere"}, BadRecord, None),
    ],
)
def test_what_an_answer_means(
    status: int, headers: dict[str, str], error: type[ObserveError], retry_after_s: float | None
) -> None:
    with serving(Receiver(script=[(status, headers, "no")])) as receiver:
        [notifier] = notifiers_of(settings_of(receiver))
        with pytest.raises(error) as caught:
            notifier.notify(Alert(incident(), "first"))
        notifier.close()  # type: ignore[attr-defined]
    assert len(receiver.got) == 1
    assert "T0KEN" not in str(caught.value)
    if retry_after_s is not None:
        assert getattr(caught.value, "retry_after_s", None) == retry_after_s


def test_a_failing_receiver_gets_it_in_the_end_and_only_once() -> None:
    saved: dict[tuple[str, str], int] = {}
    with (
        serving(Receiver(script=[(500, {}, ""), (502, {}, ""), (500, {}, "")])) as receiver,
        delivering(settings_of(receiver), saved) as delivery,
    ):
        for _ in range(5):
            delivery.say([incident()], dict(saved), at(10))
        eventually(lambda: bool(saved))
        delivery.say([incident()], {}, at(20))  # the store has not heard of it yet
        time.sleep(0.1)
    assert len(receiver.got) == 4
    assert saved == {(incident().id, "r0"): 2}


def test_retry_after_is_honoured() -> None:
    with (
        serving(Receiver(script=[(429, {"retry-after": "1"}, "")])) as receiver,
        delivering(settings_of(receiver)) as delivery,
    ):
        delivery.say([incident()], {}, at(10))
        eventually(lambda: len(receiver.got) == 2)
    assert receiver.got[1][0] - receiver.got[0][0] >= 1.0


def test_dead_and_hanging_receivers_delay_nobody() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        dead = Receiver(url=f"http://127.0.0.1:{unused.getsockname()[1]}/")
    with (
        serving(Receiver(delay_s=2.0)) as hanging,
        serving(Receiver()) as healthy,
        delivering(settings_of(dead, hanging, healthy, timeout_s=1.5)) as delivery,
    ):
        firing, started = incident(), time.monotonic()
        assert delivery.say([firing], {}, at(10)) == 3
        assert time.monotonic() - started < 1.2, "the watch loop does not wait"
        eventually(lambda: len(healthy.got) == 1)
        eventually(lambda: len(hanging.got) >= 2)
        assert len(healthy.got) == 1
        assert delivery.waiting() == 2


def test_a_refused_alert_is_not_tried_again_but_its_next_version_is() -> None:
    with serving(Receiver(script=[(400, {}, "")])) as receiver, delivering(settings_of(receiver)) as delivery:
        delivery.say([incident()], {}, at(10))
        eventually(lambda: delivery.waiting() == 0)
        for _ in range(3):
            assert delivery.say([incident()], {}, at(20)) == 0
        delivery.say([incident(version=3)], {}, at(30))
        eventually(lambda: len(receiver.got) == 2)


def test_the_newest_version_takes_the_place_of_one_that_waits() -> None:
    saved: dict[tuple[str, str], int] = {}
    with (
        serving(Receiver(script=[(503, {"retry-after": "1"}, "")])) as receiver,
        delivering(settings_of(receiver), saved) as delivery,
    ):
        delivery.say([incident(2)], {}, at(10))
        eventually(lambda: len(receiver.got) == 1)
        for version in (3, 4, 5):
            delivery.say([incident(version)], {}, at(20))
        eventually(lambda: bool(saved))
    assert len(receiver.got) == 2
    assert set(saved.values()) == {5}


def test_nobody_is_called_for_what_is_over() -> None:
    with (
        serving(Receiver(script=[(503, {"retry-after": "1"}, "")])) as receiver,
        delivering(settings_of(receiver)) as delivery,
    ):
        delivery.say([incident(2)], {}, at(10))
        eventually(lambda: len(receiver.got) == 1)
        time.sleep(0.05)
        delivery.say([ended(incident(2))], {}, at(90))
        time.sleep(1.2)
        assert delivery.waiting() == 0
    assert len(receiver.got) == 1


def test_a_restart_sends_what_was_not_sent_and_nothing_else() -> None:
    saved: dict[tuple[str, str], int] = {}
    told, missed = incident(name="web"), incident(name="batch")
    with serving(Receiver()) as receiver:
        with delivering(settings_of(receiver), saved) as before:
            before.say([told], {}, at(10))
            eventually(lambda: bool(saved))
        with delivering(settings_of(receiver), saved) as after:
            after.say([told, missed], dict(saved), at(20))
            eventually(lambda: len(saved) == 2)
            after.say([ended(told), missed], dict(saved), at(90))
            eventually(lambda: saved[told.id, "r0"] == 3)
    assert [(b["status"], b["groupLabels"]["incident"]) for b in receiver.bodies()] == [
        ("firing", told.id),
        ("firing", missed.id),
        ("resolved", told.id),
    ]


def test_a_store_that_is_away_makes_no_doubles() -> None:
    attempts: list[int] = []

    def save(id_: str, receiver: str, version: int) -> None:
        attempts.append(version)
        if len(attempts) < 3:
            raise Unavailable("the store is away")

    with serving(Receiver()) as receiver, delivering(settings_of(receiver), save=save) as delivery:
        delivery.say([incident()], {}, at(10))
        eventually(lambda: len(attempts) == 3)
        delivery.say([incident()], {}, at(20))
        eventually(lambda: delivery.waiting() == 0)
    assert len(receiver.got) == 1


def test_what_waits_is_bounded() -> None:
    delivery = Deliverer(notifiers_of(settings_of(Receiver(url="http://127.0.0.1:9/"))), lambda *_: None, capacity=3)
    due = [("r0", Alert(incident(name=f"s{n}"), "first")) for n in range(10)]
    assert (delivery.submit(due), delivery.waiting()) == (3, 3)
    for notifier in delivery.notifiers:
        notifier.close()  # type: ignore[attr-defined]


def test_who_wants_no_resolved_notice_gets_none() -> None:
    saved: dict[tuple[str, str], int] = {}
    with serving(Receiver()) as receiver, delivering(settings_of(receiver, send_resolved=False), saved) as delivery:
        delivery.say([incident()], {}, at(10))
        eventually(lambda: bool(saved))
        assert delivery.say([ended(incident())], saved, at(90)) == 0


def test_a_repeat_comes_after_its_interval_as_a_message_of_its_own() -> None:
    saved: dict[tuple[str, str], int] = {}
    with serving(Receiver()) as receiver:
        hook = WebhookSettings(url=receiver.url, format="standard", secret=SECRET)
        with delivering(AlertSettings(webhooks=(hook,), repeat_s=60), saved) as delivery:
            delivery.say([incident()], {}, at(10))
            eventually(lambda: bool(saved))
            assert delivery.say([replace(incident(), last_seen_ns=at(60))], saved, at(60)) == 0
            assert delivery.say([replace(incident(), last_seen_ns=at(70))], saved, at(70)) == 1
            eventually(lambda: len(receiver.got) == 2)
    assert len({headers["webhook-id"] for _, headers, _ in receiver.got}) == 2


def test_settings_that_cannot_work_are_named() -> None:
    def build(**hook: Any) -> None:
        notifiers_of(AlertSettings(webhooks=(WebhookSettings(url="http://127.0.0.1:9/T0KEN", **hook),)))

    with pytest.raises(Misconfigured, match="whsec_"):
        build(format="standard", secret="whsec_")
    with pytest.raises(Misconfigured, match="routing key"):
        build(format="pagerduty")
    twice = WebhookSettings(url="http://127.0.0.1:9/T0KEN")
    with pytest.raises(Misconfigured, match=r"127\.0\.0\.1-[0-9a-f]{8} stands there twice"):
        notifiers_of(AlertSettings(webhooks=(twice, twice)))


def test_nothing_secret_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    with serving(Receiver(script=[(500, {}, ""), (400, {}, "")])) as receiver:
        hook = WebhookSettings(url=receiver.url, secret=SECRET)
        with delivering(AlertSettings(webhooks=(hook,))) as delivery:
            delivery.say([incident()], {}, at(10))
            eventually(lambda: len(receiver.got) == 2 and delivery.waiting() == 0)
    assert "is refused" in caplog.text
    assert "T0KEN" not in caplog.text
    assert SECRET not in caplog.text
