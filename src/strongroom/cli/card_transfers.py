"""`strongroom cards export|import|approve…`: moving a tenant's cards, as holders of two API keys, at the public door.

The parts are encrypted to the receiving vault; what lies in the folder in between tells nothing without its key. Digest
and count are told from person to person, which is why `import` asks for them and doesn't read them off the folder.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar
from uuid import UUID

import typer

from strongroom.cli.key_running import bar, plan, print_data, tell
from strongroom.cli.settings import AsJson, DataDir, EnvironmentOption, Yes, config_for
from strongroom.kernel.config import Environment

if TYPE_CHECKING:
    from strongroom.assembly import Installation
    from strongroom.cli.card_mover import Mover
    from strongroom.kernel.config import Config

T = TypeVar("T")
KeyFile = Annotated[
    Path,
    typer.Option(
        "--key",
        help="An API key with tenant-card-transfer: a file (0600) of JSON with accountId, tenantId, publicKey and "
        "privateKey.",
    ),
]
Asked = Annotated[UUID | None, typer.Option("--transfer", help="A transfer that was asked for and approved.")]
TransferId = Annotated[UUID, typer.Argument(help="The transfer.")]


def receiver_key(
    *,
    key: KeyFile,
    data_dir: DataDir = None,
    environment: EnvironmentOption = Environment.SANDBOX,
) -> None:
    """This vault's public key, to be given to whoever sends cards here (JSON Web Key)."""
    _run(_print_receiver_key, key, data_dir, environment)


def export(
    *,
    key: KeyFile,
    receiver_key: Annotated[
        Path | None, typer.Option("--receiver-key", help="The receiving vault's public key (JSON Web Key): ask.")
    ] = None,
    transfer: Asked = None,
    out: Annotated[Path | None, typer.Option("--out", help="The folder for the parts, with --transfer.")] = None,
    yes: Yes = False,
    as_json: AsJson = False,
    data_dir: DataDir = None,
    environment: EnvironmentOption = Environment.SANDBOX,
) -> None:
    """Move all cards of the key's tenant out: ask with --receiver-key; once approved, fetch with --transfer and --out.

    Stopped in the middle, it goes on where it was.
    """
    from strongroom.cli.card_mover import Parts, read_receiver_key
    from strongroom.kernel.errors import Failure, Invalid

    if (receiver_key is None) == (transfer is None) or (transfer is None) != (out is None):
        raise Invalid(
            Failure("TRANSFER_NOT_CLEAR", "Give --receiver-key to ask for an export, or --transfer and --out to fetch.")
        )

    async def act(mover: Mover) -> None:
        if transfer is None or out is None:
            assert receiver_key is not None  # noqa: S101  checked above
            receiver = read_receiver_key(receiver_key)
            if not yes:
                said = "An export of all cards of the tenant is asked for, to be read by the holder of this key alone. "
                plan(said + "Another API key has to approve it.", as_json=as_json, kind="EXPORT")
                return
            _tell_asked(await mover.post("/exports", {"receiverKey": receiver}), as_json=as_json)
            return
        found = await mover.find(transfer)
        if not yes:
            said = f"The export is {found['state']}, {found['parts']} parts with {found['count']} cards were fetched. "
            plan(f"{said}All parts are written to {out}.", as_json=as_json, state=found["state"])
            return
        with bar(None) as advance:
            done = await mover.fetch(transfer, Parts(out), lambda cards: advance("cards", cards))
        said = f"{done['count']} cards in {done['parts']} parts are in {out}. Tell the receiver, by another way than "
        tell(as_json, done, f"{said}the folder goes:\n  --count {done['count']} --digest {done['digest']}")

    _run(act, key, data_dir, environment)


def import_(
    *,
    folder: Annotated[Path, typer.Argument(help="The folder with the parts, as the sender made it.")],
    key: KeyFile,
    count: Annotated[int | None, typer.Option("--count", min=0, help="How many cards the sender told: ask.")] = None,
    digest: Annotated[str | None, typer.Option("--digest", help="The digest that the sender told.")] = None,
    transfer: Asked = None,
    yes: Yes = False,
    as_json: AsJson = False,
    data_dir: DataDir = None,
    environment: EnvironmentOption = Environment.SANDBOX,
) -> None:
    """Take cards in: ask with --count and --digest; once approved, send the parts with --transfer.

    The folder is compared with the digest before anything is asked for. All cards come in, or none.
    """
    from strongroom.cli.card_mover import Parts, require_digest
    from strongroom.kernel.errors import Failure, Invalid

    if (transfer is None) == (digest is None) or (digest is None) != (count is None):
        raise Invalid(
            Failure("TRANSFER_NOT_CLEAR", "Give --count and --digest to ask for an import, or --transfer to send it.")
        )

    async def act(mover: Mover) -> None:
        parts = Parts(folder)
        if transfer is None:
            require_digest(parts, digest or "")
            if not yes:
                said = f"{folder} holds {len(parts)} parts with the digest that was told. An import of {count} cards "
                plan(f"{said}is asked for; another API key has to approve it.", as_json=as_json, parts=len(parts))
                return
            _tell_asked(await mover.post("/imports", {"digest": digest, "count": count}), as_json=as_json)
            return
        found = await mover.find(transfer)
        if not yes:
            said = f"The import is {found['state']}; {found['parts']} of {len(parts)} parts are there already. "
            plan(f"{said}The others are sent.", as_json=as_json, state=found["state"])
            return
        with bar(len(parts)) as advance:
            done = await mover.send(transfer, parts, lambda number: advance("parts", number))
        tell(as_json, done, f"{done['count']} cards are here; the import is {done['state']}.")

    _run(act, key, data_dir, environment)


def approve(
    *,
    transfer: TransferId,
    key: KeyFile,
    yes: Yes = False,
    as_json: AsJson = False,
    data_dir: DataDir = None,
    environment: EnvironmentOption = Environment.SANDBOX,
) -> None:
    """Approve a transfer that another API key asked for."""
    _run(lambda mover: _decide(mover, transfer, "approve", yes=yes, as_json=as_json), key, data_dir, environment)


def cancel(
    *,
    transfer: TransferId,
    key: KeyFile,
    yes: Yes = False,
    as_json: AsJson = False,
    data_dir: DataDir = None,
    environment: EnvironmentOption = Environment.SANDBOX,
) -> None:
    """Call a transfer off; what an import brought so far is removed."""
    _run(lambda mover: _decide(mover, transfer, "cancel", yes=yes, as_json=as_json), key, data_dir, environment)


def transfer(
    *,
    transfer: TransferId,
    key: KeyFile,
    as_json: AsJson = False,
    data_dir: DataDir = None,
    environment: EnvironmentOption = Environment.SANDBOX,
) -> None:
    """How a transfer stands."""

    async def act(mover: Mover) -> None:
        found = await mover.find(transfer)
        tell(as_json, found, _said_of(found))

    _run(act, key, data_dir, environment)


def find_installation(config: Config) -> Installation:
    """The installation as it is being served. Raises errors.Unavailable (`NOT_BEING_SERVED`)."""
    import logging

    from strongroom.assembly import Installation
    from strongroom.cli.workbenches import find_served
    from strongroom.kernel.errors import Failure, Unavailable
    from strongroom.kernel.telemetry import configure_logs

    configure_logs(level=logging.ERROR)
    served = find_served(Installation(config))
    if served is None:
        raise Unavailable(
            Failure(
                "NOT_BEING_SERVED",
                "The installation in {path} isn't up. Start it with `strongroom serve`, or give its --data-dir.",
                {"path": str(config.data_dir)},
            )
        )
    return served


async def _print_receiver_key(mover: Mover) -> None:
    print_data((await mover.get("/receiver-key"))["receiverKey"])


async def _decide(mover: Mover, transfer: UUID, what: str, *, yes: bool, as_json: bool) -> None:
    if not yes:
        found = await mover.find(transfer)
        plan(f"{_said_of(found)} It is to {what} it.", as_json=as_json, state=found["state"])
        return
    found = await mover.post(f"/{transfer}/{what}", {})
    tell(as_json, found, _said_of(found))


def _said_of(found: dict[str, Any]) -> str:
    said = (
        f"{found['kind']} {found['transferId']} is {found['state']}: {found['parts']} parts, {found['count']} cards. "
    )
    approved = f", approved by {found['approvedBy']}" if found["approvedBy"] else ""
    return f"{said}Asked for by {found['requestedBy']}{approved}."


def _tell_asked(found: dict[str, Any], *, as_json: bool) -> None:
    said = f"Asked for. Have it approved with another key:\n  strongroom cards approve {found['transferId']} --key …"
    tell(as_json, found, said)


def _run(act: Callable[[Mover], Awaitable[T]], key_file: Path, data_dir: Path | None, environment: Environment) -> T:
    import asyncio

    from strongroom.cli.card_mover import Mover, read_key

    key, served = read_key(key_file), find_installation(config_for(data_dir, environment, None))

    async def opened() -> T:
        async with Mover(served, key) as mover:
            return await act(mover)

    return asyncio.run(opened())
