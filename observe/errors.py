"""Every error of ours says what to do about it.

ObserveError
├── BadRecord       put it aside, count it, go on
├── Unavailable     keep the work, wait, try again
│   └── Counting    ask again: a long count goes on from where it is
├── Lost            forget the work: another member of the group has it
├── Damaged         start the process again, before anything else is committed
└── Misconfigured   stop and tell a person
"""

from __future__ import annotations


class ObserveError(Exception):
    """Base of all errors that this project raises on purpose."""


class BadRecord(ObserveError):
    """The same bytes will fail again: put the record aside with its reason, and go on with the others."""


class Unavailable(ObserveError):
    """A server or a buffer cannot take more now: keep the work, wait `retry_after_s`, and try again."""

    def __init__(self, message: str, *, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Counting(Unavailable):
    """A count has come this far in the time that it may take at once, and goes on when it is asked for again."""

    def __init__(self, counted: int, of: int) -> None:
        super().__init__(f"Kafka: {counted:,} of {of:,} pending records are counted; ask again and it goes on")


class Lost(ObserveError):
    """The partition has another owner now, who is handed the same records: forget this batch."""


class Damaged(ObserveError):
    """What this process wrote may be cut off: end it at once, close nothing, and start it again."""


class Misconfigured(ObserveError):
    """A person must act. The message names the setting, its value, and what is allowed."""
