"""The front door: what signing in and accepting invitations work with."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from urllib.parse import urlsplit

from strongroom.database import Databases
from strongroom.kernel.secret import Secret
from strongroom.people.address_book import AddressBook
from strongroom.people.keys import DoorKeys
from strongroom.people.outside import Outside

INVITATION_PATH = "/portal/invitation/"
SIGN_IN_PATH = "/portal/sign-in"


@dataclass(frozen=True, kw_only=True)
class FrontDoor:
    """One for each process. `origin` is where browsers find the portals, such as `https://localhost:8443`."""

    databases: Databases
    keys: DoorKeys
    origin: str
    outside: Outside = field(default_factory=Outside)

    @cached_property
    def book(self) -> AddressBook:
        """Where addresses are looked up."""
        return AddressBook(databases=self.databases, keys=self.keys)

    @property
    def host(self) -> str:
        """The name that passkeys are bound to (WebAuthn section 5.1.2, effective domain)."""
        return urlsplit(self.origin).hostname or ""

    def invitation_link(self, token: Secret[str]) -> Secret[str]:
        """The link that an invitation's token stands in."""
        return Secret(self.origin + INVITATION_PATH + token.reveal())

    @property
    def sign_in_link(self) -> str:
        """Where people sign in."""
        return self.origin + SIGN_IN_PATH
