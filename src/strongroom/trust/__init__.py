"""The promises, the checks that prove them on the running system, and the evidence."""

from strongroom.trust.controls import CHECKS, Check
from strongroom.trust.evidence import last_verdicts
from strongroom.trust.promises import PROMISES, Group, Promise
from strongroom.trust.proving import prove
from strongroom.trust.verdicts import Colour, Figure, Verdict, describe_age
from strongroom.trust.workbench import Endpoint, Level, Listener, Workbench

__all__ = [
    "CHECKS",
    "PROMISES",
    "Check",
    "Colour",
    "Endpoint",
    "Figure",
    "Group",
    "Level",
    "Listener",
    "Promise",
    "Verdict",
    "Workbench",
    "describe_age",
    "last_verdicts",
    "prove",
]
