"""The only HTTP client of the product.

Everything strongroom says to the outside over HTTP goes through an `Outbound`: to destinations on its allow list only,
over verified TLS only, to an address that was checked after the name was resolved, and never for longer, nor for more
bytes, than its limits say. No redirect is followed, no proxy or credential is taken from the environment, no cookie is
kept and nothing is decompressed.

When a request comes to nothing, the two ways in which that matters to money have two types: `NotSent` (it is certain
that no byte of the request left) and `NoAnswer` (bytes may have left; only asking the other side tells what it did).
"""

from strongroom.outbound.client import Answer, Limits, Outbound
from strongroom.outbound.destinations import Destination, address_refusal
from strongroom.outbound.failures import NoAnswer, NotSent

__all__ = ["Answer", "Destination", "Limits", "NoAnswer", "NotSent", "Outbound", "address_refusal"]
