"""Building ISO 20022 messages, element by element, in one namespace."""

from __future__ import annotations

from lxml import etree

from strongroom.kernel.money import Money


class Writer:
    """Builds one message. The same calls always give the same bytes.

    A path is names joined by `/`; each call makes new elements for all of it.
    """

    __slots__ = ("_prefix", "root")

    def __init__(self, message: str) -> None:
        """`message` is the name and version, such as `pain.001.001.09`."""
        namespace = f"urn:iso:std:iso:20022:tech:xsd:{message}"
        self._prefix = f"{{{namespace}}}"
        self.root = etree.fromstring(f'<Document xmlns="{namespace}"/>')

    def nest(self, parent: etree._Element, path: str) -> etree._Element:
        """The innermost of new elements below `parent`."""
        for name in path.split("/"):
            parent = etree.SubElement(parent, self._prefix + name)
        return parent

    def put(self, parent: etree._Element, path: str, value: str) -> None:
        """`value` at `path`; nothing at all when it is empty."""
        if value:
            self.nest(parent, path).text = value

    def put_amount(self, parent: etree._Element, path: str, money: Money) -> None:
        """The size of `money` with its currency; the sign is left to the message's own indicators."""
        element = self.nest(parent, path)
        element.set("Ccy", money.currency)
        element.text = str(abs(money.decimal))

    def to_bytes(self) -> bytes:
        """The message in UTF-8."""
        return etree.tostring(self.root, encoding="UTF-8", xml_declaration=True, pretty_print=True)
