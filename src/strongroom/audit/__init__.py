"""The append-only record: who did what to what, and what was refused."""

from strongroom.audit.record import Entry, Outcome, record, record_many

__all__ = ["Entry", "Outcome", "record", "record_many"]
