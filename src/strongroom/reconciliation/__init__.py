"""Reconciliation: what the bank says happened, against what was instructed.

A bank's reports are taken in by `import_report` (read with `read_report`), or from a folder by `import_inbox`; what
doesn't match is listed by `list_breaks`, what never came by `list_missing`. The rules are in `matching`.
"""

from strongroom.reconciliation.breaks import (
    CurrencySummary,
    Missing,
    list_breaks,
    list_missing,
    resolve_break,
    summarise,
)
from strongroom.reconciliation.inbox import ImportResult, import_inbox
from strongroom.reconciliation.reading import ReportReader
from strongroom.reconciliation.statements import (
    MAX_REPORT_BYTES,
    Imported,
    KeptLine,
    KeptStatement,
    Report,
    get_statement,
    import_report,
    list_lines,
    list_statements,
    read_document,
    read_report,
)

__all__ = [
    "MAX_REPORT_BYTES",
    "CurrencySummary",
    "ImportResult",
    "Imported",
    "KeptLine",
    "KeptStatement",
    "Missing",
    "Report",
    "ReportReader",
    "get_statement",
    "import_inbox",
    "import_report",
    "list_breaks",
    "list_lines",
    "list_missing",
    "list_statements",
    "read_document",
    "read_report",
    "resolve_break",
    "summarise",
]
