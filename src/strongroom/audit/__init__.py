"""The append-only record: who did what to what, and what was refused."""

from strongroom.audit.record import INSERT_ENTRIES, Entry, Outcome, parameters_of, record, record_many

__all__ = ["INSERT_ENTRIES", "Entry", "Outcome", "parameters_of", "record", "record_many"]
