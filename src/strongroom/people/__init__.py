"""People: who belongs to an account, how they come in, prove who they are, and stay signed in."""

from strongroom.people.acceptance import Accepted, accept_with_password
from strongroom.people.front_door import FrontDoor
from strongroom.people.invitations import Invitation, InvitationState, invite
from strongroom.people.keys import DoorKeys
from strongroom.people.outside import Outside
from strongroom.people.persons import Person

__all__ = [
    "Accepted",
    "DoorKeys",
    "FrontDoor",
    "Invitation",
    "InvitationState",
    "Outside",
    "Person",
    "accept_with_password",
    "invite",
]
