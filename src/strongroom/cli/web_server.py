"""The web server: Granian, as it is started for the API, and where we want it otherwise than it comes.

HTTP/1.1 only. Where Granian (2.8) speaks both versions, it waits for the first bytes after the TLS handshake without a
limit, so whoever says nothing at all holds a connection for ever. With one version every wait for a request has a
limit, `HEAD_WITHIN_S`: for the handshake, for a head, and between two requests. A proxy in front may speak HTTP/2.

One of its processes that dies is started again, and again when that one dies at once. Granian by itself then ends all
of them. So it does here only while none has lived long enough to be believed (then `serve` starts the whole of it
anew); otherwise that one comes back after pauses that grow, and the others serve.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import structlog
from granian.constants import HTTPModes, Interfaces, Loops, SSLProtocols
from granian.http import HTTP1Settings
from granian.log import LogLevels
from granian.server.mp import MPServer

log = structlog.get_logger(__name__)

HEAD_WITHIN_S: Final = 10
"""How long a connection may be silent: in the handshake, in a request's head, and between two requests."""
MAX_CONNECTIONS: Final = 8_192
"""Most connections that one process holds."""
STEADY_AFTER_S: Final = 5.0
"""A process that lived this long is believed to work."""
FIRST_PAUSE_S: Final = 0.5
LONGEST_PAUSE_S: Final = 8.0
"""A process that dies before that, again and again, comes back after pauses that double, up to this."""
_STOP_WITHIN_S: Final = 20
_LOOK_EVERY_S: Final = 0.1


class WebServer(MPServer):
    """The server of one address, with so many processes."""

    def __init__(self, *, host: str, port: int, processes: int, chain: Path, key: Path) -> None:
        """`chain` and `key` are PEM files; they are read again on SIGHUP."""
        super().__init__(
            "strongroom",
            address=host,
            port=port,
            interface=Interfaces.ASGI,
            workers=processes,
            http=HTTPModes.http1,
            http1_settings=HTTP1Settings(header_read_timeout=1000 * HEAD_WITHIN_S),
            backpressure=MAX_CONNECTIONS,
            loop=Loops.uvloop,
            websockets=False,
            log_level=LogLevels.warning,
            ssl_cert=chain,
            ssl_key=key,
            ssl_protocol_min=SSLProtocols.tls12,
            respawn_failed_workers=True,
            workers_kill_timeout=_STOP_WITHIN_S,
        )
        self._pauses: dict[int, float] = {}

    def _respawn_workers(
        self,
        workers: Sequence[int],
        spawn_target: Callable[..., None],
        target_loader: Callable[..., Any],
        delay: float = 0,
    ) -> None:
        """Start these processes again: those that died, or (with a `delay` between new and old) all of them."""
        if not delay:
            self._pause(max(self._pause_before(index) for index in workers))
        super()._respawn_workers(workers, spawn_target, target_loader, delay)
        if any(self._is_steady(index) for index in range(self.workers)):
            self.respawned_wrks.clear()  # or one that dies soon would end the others too

    def _pause_before(self, index: int) -> float:
        """How long a process that died stays away, in seconds."""
        pause_s = (
            0.0 if self._is_steady(index) else min(2 * self._pauses.get(index, 0) or FIRST_PAUSE_S, LONGEST_PAUSE_S)
        )
        self._pauses[index] = pause_s
        log.warning("serve.process_ended", process=index + 1, again_in_s=pause_s)
        return pause_s

    def _is_steady(self, index: int) -> bool:
        """Whether it has lived long, so far or when it died."""
        return bool(time.monotonic() - self.wrks[index].birth >= STEADY_AFTER_S)

    def _pause(self, pause_s: float) -> None:
        until = time.monotonic() + pause_s
        while time.monotonic() < until and not self.interrupt_signal:
            time.sleep(_LOOK_EVERY_S)
