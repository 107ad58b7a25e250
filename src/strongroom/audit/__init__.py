"""The append-only record: who did what to what, and what was refused."""

from strongroom.audit.record import Entry, record, record_many

__all__ = ["Entry", "record", "record_many"]
