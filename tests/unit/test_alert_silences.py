"""A silence covers the service to look at; where that is unknown, all that suffer must be covered."""

import pytest

from observe.alert import not_silenced
from observe.types import Incident, Severity, Silence, State
from tests.unit.alert_parts import at, cause, shift, unknown

NOW = at(100)


def incident(causes, services) -> Incident:
    symptoms = tuple(shift(service) for service in services)
    return Incident("i", 1, State.FIRING, Severity.WARNING, "t", NOW, NOW, NOW, None, symptoms, tuple(causes))


def silence(pattern: str, ends_ns: int = NOW + 1) -> Silence:
    return Silence("s", pattern, "", at(0), ends_ns)


@pytest.mark.parametrize(
    ("pattern", "causes", "services", "told"),
    [
        ("llm*", [cause("llm-engine")], ["gateway"], False),
        ("gateway", [cause("llm-engine")], ["gateway"], True),
        ("gateway", [unknown()], ["gateway"], False),
        ("gateway", [unknown()], ["gateway", "web"], True),
        ("*", [cause("llm-engine")], ["gateway"], False),
        ("LLM*", [cause("llm-engine")], ["gateway"], True),
    ],
)
def test_what_a_silence_covers(pattern, causes, services, told):
    one = incident(causes, services)
    assert not_silenced([one], [silence(pattern)], NOW) == ([one] if told else [])


def test_an_ended_silence_covers_nothing():
    one = incident([cause("llm-engine")], ["gateway"])
    assert not_silenced([one], [silence("llm*", ends_ns=NOW)], NOW) == [one]
    assert not_silenced([one], [], NOW) == [one]
