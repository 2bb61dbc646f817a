"""From the logging module to OTLP, with the trace and span in which a line was written."""

from __future__ import annotations

import logging

from opentelemetry._logs import SeverityNumber
from opentelemetry.context import get_current
from opentelemetry.sdk._logs import LoggerProvider

SEVERITIES = {
    logging.CRITICAL: SeverityNumber.FATAL,
    logging.ERROR: SeverityNumber.ERROR,
    logging.WARNING: SeverityNumber.WARN,
    logging.INFO: SeverityNumber.INFO,
}


EXPORTERS = ("opentelemetry", "urllib3", "observe.sdk", "observe.kafka")


class OtlpHandler(logging.Handler):
    """Sends records from `level` on. The exporters' own complaints are left out: they would feed on themselves."""

    def __init__(self, provider: LoggerProvider, level: int = logging.WARNING) -> None:
        super().__init__(level)
        self._provider = provider

    def emit(self, record: logging.LogRecord) -> None:
        if record.name.startswith(EXPORTERS):
            return
        try:
            self._provider.get_logger(record.name).emit(
                timestamp=int(record.created * 1e9),
                context=get_current(),
                severity_number=_severity(record.levelno),
                severity_text=record.levelname,
                body=record.getMessage(),
                attributes={"code.function.name": record.funcName, "code.line.number": record.lineno},
                exception=record.exc_info[1] if record.exc_info else None,
            )
        except Exception:
            self.handleError(record)


def _severity(level: int) -> SeverityNumber:
    """
    >>> _severity(logging.WARNING + 5).name
    'WARN'
    """
    return next((number for floor, number in SEVERITIES.items() if level >= floor), SeverityNumber.DEBUG)
