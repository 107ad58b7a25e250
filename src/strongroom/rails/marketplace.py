"""The catalogue of apps: what can be installed, and what each can carry."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from strongroom.kernel.errors import Failure, NotFound
from strongroom.rails.bank import profile
from strongroom.rails.contract import App, Direction, PaymentMethod

SIMULATOR: Final = "simulator"
SEPA_CREDIT_TRANSFER: Final = "sepa-credit-transfer"

_UNION: Final = "AT BE BG CY CZ DE DK EE ES FI FR GR HR HU IE IT LT LU LV MT NL PL PT RO SE SI SK"
_UNION_TERRITORIES: Final = "AX BL GF GP MF MQ PM RE YT"
_ECONOMIC_AREA: Final = "IS LI NO"
_OTHERS: Final = "AD AL CH GB GG GI IM JE MC MD ME MK RS SM VA"
SEPA_COUNTRIES: Final = frozenset(f"{_UNION} {_UNION_TERRITORIES} {_ECONOMIC_AREA} {_OTHERS}".split())
"""Where SEPA credit transfers reach (European Payments Council, EPC409-09, list of SEPA scheme countries)."""

_APPS: Final[Sequence[App]] = (
    App(
        id=SIMULATOR,
        name="Provider simulator",
        developer_id="strongroom",
        developer_name="strongroom",
        description=(
            "A payment provider for rehearsals, with books of its own. Carries every direction, currency and country, "
            "moves no money, and misbehaves when the remittance text asks for it."
        ),
        directions=frozenset(Direction),
        methods=(
            PaymentMethod(id="bank-transfer", name="Bank transfer", tags=("bank",)),
            PaymentMethod(id="direct-debit", name="Direct debit", tags=("bank",)),
        ),
        tags=("rehearsal",),
        environments=frozenset({"sandbox"}),
    ),
    App(
        id=SEPA_CREDIT_TRANSFER,
        name="SEPA credit transfer by file",
        developer_id="strongroom",
        developer_name="strongroom",
        description=(
            "Pays out in euro to accounts in the SEPA countries: batches are written as pain.001 files for your bank, "
            "whose pain.002 and camt.053 files are read back."
        ),
        directions=frozenset({Direction.CREDIT}),
        currencies=frozenset({"EUR"}),
        countries=SEPA_COUNTRIES,
        methods=(PaymentMethod(id="sepa-credit-transfer", name="SEPA credit transfer", tags=("bank", "file")),),
        tags=("bank", "file", "sepa"),
        settings=profile.SETTINGS,
        is_file_rail=True,
        lead_days=1,
    ),
)
_BY_ID: Final = {app.id: app for app in _APPS}


def list_apps(environment: str) -> Sequence[App]:
    """The apps that can be installed in an environment (`sandbox` or `production`), in the catalogue's order."""
    return [app for app in _APPS if environment in app.environments]


def find_app(app_id: str) -> App | None:
    """The app with this id, in whatever environment, or None."""
    return _BY_ID.get(app_id)


def get_app(app_id: str) -> App:
    """The app with this id, in whatever environment. Raises errors.NotFound (`APP_NOT_FOUND`)."""
    app = find_app(app_id)
    if app is None:
        raise NotFound(Failure("APP_NOT_FOUND", "There is no app {appId} in the marketplace.", {"appId": app_id}))
    return app
