"""PAY-2: placeholder"""
from strongroom.trust.verdicts import CannotTell, Figure
from strongroom.trust.workbench import Workbench
async def check_once(bench: Workbench) -> Figure:
    raise CannotTell("")
