"""A process of its own that does a rotation and says how far it is, a line for each batch, until it is done or killed.

`python -m tests.processes.rotating DATA_DIR ACCOUNT TENANT`
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from uuid import UUID

from strongroom.assembly import Installation
from strongroom.kernel.config import Config
from strongroom.kernel.ids import AccountId, TenantId
from strongroom.vault import Scope, Work


def say(work: Work) -> None:
    sys.stdout.write(f"{work.table} {work.seen} {work.done} {work.is_done}\n")
    sys.stdout.flush()


async def main() -> None:
    data_dir, account, tenant = sys.argv[1:]
    app = Installation(Config(data_dir=Path(data_dir))).app(connections=2)
    await app.open()
    try:
        await app.key_desk.tend(Scope(account=AccountId(UUID(account)), tenant=TenantId(UUID(tenant))), (), say)
    finally:
        await app.close()


if __name__ == "__main__":
    asyncio.run(main())
