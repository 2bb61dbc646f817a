"""The JSON of every answer, for the OpenAPI document. Names with a unit are in that unit; `…_at` is RFC 3339 in UTC."""

from observe.api.models.base import Health, Problem
from observe.api.models.graph import Graph
from observe.api.models.incidents import Attributes, Audited, Compared, IncidentItem, Incidents, Replayed
from observe.api.models.judging import Backtest, Canary, Slos
from observe.api.models.operate import Audit, Silence, Silences
from observe.api.models.services import ManyNamed, Services, Windows
from observe.api.models.signals import Gpus, Logs, MetricNames, MetricSeries, Trace, Traces

__all__ = [
    "Attributes",
    "Audit",
    "Audited",
    "Backtest",
    "Canary",
    "Compared",
    "Gpus",
    "Graph",
    "Health",
    "IncidentItem",
    "Incidents",
    "Logs",
    "ManyNamed",
    "MetricNames",
    "MetricSeries",
    "Problem",
    "Replayed",
    "Services",
    "Silence",
    "Silences",
    "Slos",
    "Trace",
    "Traces",
    "Windows",
]
