"""Letters: what is to be sent by mail, rendered and sealed until it is on its way.

A letter is written in the operation whose change it tells of, so that neither is there without the other. It is
rendered there, too: what it says is what was so at that moment.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from uuid import UUID

import msgspec
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from strongroom.database import Operation
from strongroom.kernel.ids import new_uuid


@dataclass(frozen=True, slots=True, kw_only=True)
class Letter:
    """A letter, ready to be sent."""

    to: str
    subject: str
    text: str
    html: str


async def queue_letter(op: Operation, kind: str, to: str, values: Mapping[str, object]) -> UUID:
    """Have a letter sent to an address once this operation is committed.

    `kind` names the templates (`templates/{kind}.txt` and `.html`); `values` are all that stands in them.
    """
    letter = render(kind, to, values)
    mail_id = new_uuid()
    await op.run(
        "insert into mails (account_id, mail_id, kind, sealed, created_at) values (%s, %s, %s, %s, %s)",
        op.account,
        mail_id,
        kind,
        op.cipher.seal("mails", "sealed", mail_id.bytes, msgspec.msgpack.encode(letter)),
        op.now,
    )
    await op.run("insert into due_mails (account_id, mail_id, due_at) values (%s, %s, %s)", op.account, mail_id, op.now)
    return mail_id


def open_letter(op: Operation, mail_id: UUID, envelope: bytes) -> Letter:
    """A letter out of its envelope."""
    return _DECODER.decode(op.cipher.open("mails", "sealed", mail_id.bytes, envelope))


def render(kind: str, to: str, values: Mapping[str, object]) -> Letter:
    """A letter of a kind. The first line of its text is the subject."""
    subject, _, text = _TEMPLATES.get_template(f"{kind}.txt").render(values).partition("\n")
    html = _TEMPLATES.get_template(f"{kind}.html").render(values, subject=subject)
    return Letter(to=to, subject=" ".join(subject.split()), text=text.strip() + "\n", html=html)


_TEMPLATES: Final = Environment(
    loader=PackageLoader("strongroom.notices"),
    autoescape=select_autoescape(["html"]),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_DECODER: Final = msgspec.msgpack.Decoder(Letter)
