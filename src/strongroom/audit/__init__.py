"""The append-only record: who did what to what, and what was refused."""

from strongroom.audit.alerts import raise_alert
from strongroom.audit.record import Entry, Outcome, record, record_many

__all__ = ["Entry", "Outcome", "raise_alert", "record", "record_many"]
