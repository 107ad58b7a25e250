"""Test numbers that the card schemes and processors publish; none is anybody's card."""

from __future__ import annotations

VISA = "4111111111111111"
VISA_13 = "4222222222222"
MASTERCARD = "5555555555554444"
MASTERCARD_2 = "2223003122003222"
AMEX = "378282246310005"
DISCOVER = "6011111111111117"
DINERS = "30569309025904"
DINERS_36 = "36227206271667"
JCB = "3566002020360505"
UNIONPAY = "6200000000000005"
MAESTRO = "6759649826438453"
DANKORT = "5019717010103742"
ALL = {
    VISA: "VISA",
    VISA_13: "VISA",
    MASTERCARD: "MASTERCARD",
    MASTERCARD_2: "MASTERCARD",
    AMEX: "AMEX",
    DISCOVER: "DISCOVER",
    DINERS: "DINERS",
    DINERS_36: "DINERS",
    JCB: "JCB",
    UNIONPAY: "UNIONPAY",
    MAESTRO: "MAESTRO",
    DANKORT: "DANKORT",
}


def card(number: str = VISA, **changed: object) -> dict[str, object]:
    """A card as a form sends it; None leaves a field out."""
    sent = {"number": number, "expiryMonth": 12, "expiryYear": 2031, "holder": "Erika Mustermann", "cvv": "123"}
    return {name: value for name, value in {**sent, **changed}.items() if value is not None}
