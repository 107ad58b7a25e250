"""Logs: structured, to standard error; lines for people on a terminal, JSON otherwise. No personal data, no secrets."""

from __future__ import annotations

import contextlib
import ctypes
import io
import logging
import os
import resource
import signal
import sys
from typing import Final, TextIO, cast

import structlog

_SET_PARENT_DEATH_SIGNAL: Final = 1
"""`PR_SET_PDEATHSIG` of prctl(2)."""

_SET_DUMPABLE: Final = 4
"""`PR_SET_DUMPABLE` of prctl(2)."""

_TRACEBACKS: Final = structlog.processors.ExceptionRenderer(
    structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
)
"""Without the values of variables: they hold tokens, names and amounts."""


def configure_logs(*, level: int = logging.INFO) -> None:
    """Log from `level` up."""
    for_people = sys.stderr.isatty()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
            if for_people
            else _TRACEBACKS,
            *([] if for_people else [structlog.processors.JSONRenderer()]),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(cast(TextIO, _StandardError())),
        cache_logger_on_first_use=True,
    )


class _StandardError(io.TextIOBase):
    """Standard error for logs: a full disk or a closed pipe behind it costs the line, never the work that wrote it."""

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError):
            sys.stderr.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            sys.stderr.flush()


def end_with_parent(parent: int | None = None, how: signal.Signals = signal.SIGTERM) -> None:
    """Have the kernel end this process when the one that started it dies, so that a killed supervisor leaves nobody.

    `parent` is the number of that one; given, this process also ends when it has died already. Linux only; elsewhere a
    killed supervisor's children have to be ended by hand.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_SET_PARENT_DEATH_SIGNAL, how)
        if parent is not None and os.getppid() != parent:
            os._exit(1)


def forbid_core_files() -> None:
    """Have no core file of this process, nor of any that it starts, written (`RLIMIT_CORE` of setrlimit(2))."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def forbid_dumps() -> None:
    """Keep this process's memory out of core files and from other processes of the same user (root is root). Linux
    only."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_SET_DUMPABLE, 0)
