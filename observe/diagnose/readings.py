"""What one device, server or container says, as levels before and after, and as sentences."""

from __future__ import annotations

from dataclasses import dataclass

from observe.types import Numbers


@dataclass(frozen=True, slots=True)
class Reading:
    """One sentence, and the series that it is about; `numbers` are its means and largest values."""

    text: str
    metric: str
    hw_id: str
    host: str
    instance: str
    labels: str
    numbers: Numbers


@dataclass(frozen=True, slots=True)
class Told:
    """What one series says before and after the onset."""

    metric: str  # without a wrapper's prefix
    hw_id: str
    host: str
    instance: str
    labels: str
    before: float
    after: float
    before_max: float
    after_max: float
    name: str  # as it was sent

    def said(self, text: str) -> Reading:
        numbers = (
            ("before", self.before), ("after", self.after), ("before_max", self.before_max),
            ("after_max", self.after_max),
        )  # fmt: skip
        return Reading(text, self.name, self.hw_id, self.host, self.instance, self.labels, numbers)


Verdict = tuple[float, list[Reading]]
"""How far it would make a cause by itself, 0..1, and why."""
