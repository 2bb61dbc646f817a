"""Incidents from diagnoses, and people told about them.

`step`, `step_usual` and `alerts_due` decide, `abnormal` tells detection what to leave out, `Deliverer` brings alerts to
receivers.
"""

from observe.alert.decide import alerts_due, not_silenced
from observe.alert.deliver import Deliverer
from observe.alert.intervals import abnormal
from observe.alert.lifecycle import step
from observe.alert.usual import step_usual, unusual_text, usual_text
from observe.alert.webhooks import notifiers_of

__all__ = [
    "Deliverer",
    "abnormal",
    "alerts_due",
    "not_silenced",
    "notifiers_of",
    "step",
    "step_usual",
    "unusual_text",
    "usual_text",
]
