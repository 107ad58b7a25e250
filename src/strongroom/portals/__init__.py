"""The portals: pages for people, made on the server."""

from strongroom.portals.table import PAGES
from strongroom.portals.web import Entrance, Page, Portals

__all__ = ["PAGES", "Entrance", "Page", "Portals"]
