"""The money, modelled in plain Python: what instructions are, what a provider does with them, and what we may know.

Written from the promises, not from the code: nothing of `strongroom` is imported here. Time is in seconds.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

LEASE_S = 90
FIRST_ENQUIRY_S = {"UNCONFIRMED": 5, "PROCESSING": 30}
LONGEST_REST_S = 600

SETTLES, REFUSES, ERRS, WAITS = "", "REFUSE-AM04", "ERROR-200", "PENDING-ENQUIRY"
WORDS = (SETTLES, REFUSES, ERRS, WAITS)
"""What an instruction asks of the provider: to pay; to refuse; to pay and answer nonsense; to wait until asked."""


@dataclass
class Attempt:
    """One asking for money to move, as the provider sees it and as we do."""

    word: str
    money: tuple[str, int]
    born: float
    status: str = "INTENDED"
    since: float = 0.0
    claimed_until: float | None = None
    received: bool = False
    executed: int = 0

    def arrive(self) -> str:
        """The provider gets it; what it truly does."""
        self.received = True
        if self.word in {SETTLES, ERRS}:
            self.executed += 1
        return self.truth()

    def truth(self) -> str:
        """What the provider would say if it said the truth."""
        if not self.received:
            return "NEVER_RECEIVED"
        if self.executed:
            return "SETTLED"
        return "REFUSED" if self.word == REFUSES else "PENDING"

    def be_asked(self) -> str:
        """An enquiry, which is what some payments wait for."""
        if self.received and self.word == WAITS and not self.executed:
            self.executed += 1
        return self.truth()


@dataclass
class Instruction:
    """What somebody wants paid."""

    word: str
    money: tuple[str, int]
    due: float
    status: str = "READY"
    attempts: list[Attempt] = field(default_factory=list)


class Model:
    """Everything, and what happens to it."""

    def __init__(self) -> None:
        self.now = 0.0
        self.instructions: list[Instruction] = []

    def create(self, word: str, money: tuple[str, int], due: float) -> None:
        self.instructions.append(Instruction(word, money, due))

    def change(self, at: int, word: str, money: tuple[str, int]) -> bool:
        """Whether that is allowed; only what nobody has been asked for can be changed."""
        instruction = self.instructions[at]
        if instruction.status != "READY":
            return False
        instruction.word, instruction.money = word, money
        return True

    def cancel(self, at: int) -> bool:
        instruction = self.instructions[at]
        if instruction.status != "READY":
            return False
        instruction.status = "CANCELLED"
        return True

    def pass_time(self, seconds: float) -> None:
        self.now += seconds

    def dispatch(self, fate: str) -> None:
        """A process pays what is due and asks about what is open: `lives`, meets a provider that is `down`, or dies
        `before` or `after` telling the provider."""
        due = [each for each in self.instructions if each.status == "READY" and each.due <= self.now]
        for instruction in due:
            self._attempt(instruction, fate)
        if due and fate in {"before", "after"}:
            return
        self._enquire(fate)

    def call_back(self, at: int) -> bool:
        """The provider tells of its own accord where the newest attempt stands; whether there is anything to tell."""
        instruction = self.instructions[at]
        if not instruction.attempts or not instruction.attempts[-1].received:
            return False
        self._learn(instruction, instruction.attempts[-1], instruction.attempts[-1].truth())
        return True

    def books(self) -> Counter[tuple[int, str, int]]:
        """What the provider's books must show: instruction, currency, amount → how often."""
        return Counter(
            {
                (at, *attempt.money): attempt.executed
                for at, instruction in enumerate(self.instructions)
                for attempt in instruction.attempts
                if attempt.executed
            }
        )

    def _attempt(self, instruction: Instruction, fate: str) -> None:
        attempt = Attempt(instruction.word, instruction.money, self.now, since=self.now)
        attempt.claimed_until = self.now + LEASE_S
        instruction.attempts.append(attempt)
        instruction.status = "PROCESSING"
        if fate == "down":
            attempt.status, instruction.status = "FAILED", "READY"
        elif fate == "after":
            attempt.arrive()
        elif fate == "lives":
            truth = attempt.arrive()
            self._learn(instruction, attempt, "UNCONFIRMED" if instruction.word == ERRS else truth)

    def _enquire(self, fate: str) -> None:
        live = [
            (instruction, instruction.attempts[-1])
            for instruction in self.instructions
            if instruction.attempts and instruction.attempts[-1].status in {"INTENDED", "PROCESSING", "UNCONFIRMED"}
        ]
        for instruction, attempt in live:
            overdue = attempt.claimed_until is None or attempt.claimed_until < self.now
            if attempt.status == "INTENDED":
                if overdue:
                    self._learn(instruction, attempt, "UNCONFIRMED")
                continue
            pause = FIRST_ENQUIRY_S[attempt.status]
            if overdue and attempt.since < self.now - pause:
                attempt.claimed_until = self.now + max(pause, min((self.now - attempt.born) / 4, LONGEST_REST_S))
                self._learn(instruction, attempt, "UNCONFIRMED" if fate == "down" else attempt.be_asked())

    def _learn(self, instruction: Instruction, attempt: Attempt, word: str) -> None:
        # What says nothing new doesn't end the rest that came with the enquiry.
        if attempt.status in {"SUCCESS", "FAILED", word}:
            return
        if attempt.status == "PROCESSING" and word in {"PENDING", "UNCONFIRMED"}:
            return
        attempt.status, instruction.status = {
            "SETTLED": ("SUCCESS", "COMPLETED"),
            "REFUSED": ("FAILED", "FAILED"),
            "NEVER_RECEIVED": ("FAILED", "READY"),
            "PENDING": ("PROCESSING", "PROCESSING"),
            "UNCONFIRMED": ("UNCONFIRMED", "UNCONFIRMED"),
        }[word]
        attempt.since, attempt.claimed_until = self.now, None
