"""Notices: letters to people. Written in the operation that gives the reason, sent by the worker."""

from strongroom.notices.letters import Letter, queue_letter
from strongroom.notices.sending import Postman, send_due

__all__ = ["Letter", "Postman", "queue_letter", "send_due"]
