"""A process of its own that dispatches for one tenant and kills itself (SIGKILL) between two beats.

`python -m tests.payments.doomed DATA_DIR TENANT SIMULATOR_URL CA SECRET OUTBOX before|after|file`
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path
from urllib.parse import urlsplit
from uuid import UUID

from strongroom.assembly import Installation
from strongroom.kernel.clock import SystemClock
from strongroom.kernel.config import Config
from strongroom.kernel.ids import TenantId
from strongroom.kernel.secret import Secret
from strongroom.outbound import Destination, Outbound
from strongroom.payments import dispatch
from strongroom.payments.dispatch import Dispatcher
from strongroom.rails.connectors.simulator import Simulator
from tests.payments.paying import Rail


def die(_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


async def main() -> None:
    data_dir, tenant, url, ca, secret, outbox, when = sys.argv[1:]
    app = Installation(Config(data_dir=Path(data_dir))).app(clock=SystemClock(), connections=2)
    await app.open()
    address = urlsplit(url)
    destination = Destination(host=str(address.hostname), port=int(address.port or 0), loopback_ok=True)
    outbound = Outbound(allowed=[destination], trust=Path(ca))
    rail = Rail(Simulator(outbound=outbound, url=url, secret=Secret(secret), clock=SystemClock()))
    if when == "before":
        rail.before = die
    elif when == "after":
        rail.after = die
    else:
        write_once = dispatch.write_once

        def write_and_die(path: Path, content: bytes) -> None:
            write_once(path, content)
            die(path)

        dispatch.write_once = write_and_die
    await Dispatcher(app.databases, lambda *_: rail, Path(outbox)).round(TenantId(UUID(tenant)))


if __name__ == "__main__":
    asyncio.run(main())
