"""The catalogue of apps."""

from __future__ import annotations

import pytest

from strongroom.kernel.errors import NotFound
from strongroom.kernel.money import COUNTRIES, EXPONENTS
from strongroom.rails.bank import profile
from strongroom.rails.contract import Direction
from strongroom.rails.marketplace import SEPA_CREDIT_TRANSFER, SIMULATOR, find_app, get_app, list_apps


def test_the_simulator_is_for_the_sandbox_alone() -> None:
    assert [app.id for app in list_apps("sandbox")] == [SIMULATOR, SEPA_CREDIT_TRANSFER]
    assert [app.id for app in list_apps("production")] == [SEPA_CREDIT_TRANSFER]


def test_an_app_is_found_by_its_id() -> None:
    assert get_app(SIMULATOR) is find_app(SIMULATOR)
    assert find_app("simulator ") is None
    with pytest.raises(NotFound) as refusal:
        get_app("nobody")
    assert refusal.value.code == "APP_NOT_FOUND"
    assert "nobody" in str(refusal.value)


def test_the_simulator_carries_everything_and_needs_no_settings() -> None:
    app = get_app(SIMULATOR)
    assert (app.directions, app.currencies, app.countries) == (frozenset(Direction), frozenset(), frozenset())
    assert dict(app.settings) == {}
    assert not app.is_file_rail


def test_sepa_credit_transfers_pay_out_euro_a_day_ahead_and_only_where_sepa_reaches() -> None:
    app = get_app(SEPA_CREDIT_TRANSFER)
    assert (app.directions, app.currencies) == (frozenset({Direction.CREDIT}), frozenset({"EUR"}))
    assert (app.is_file_rail, app.lead_days) == (True, 1)
    assert {"DE", "CH", "GB", "IS", "SM", "RS", "GF"} <= app.countries
    assert not app.countries & {"US", "TR", "UA", "BA", "NC"}
    assert app.settings == profile.SETTINGS


@pytest.mark.parametrize("app_id", [app.id for app in list_apps("sandbox")])
def test_every_app_speaks_of_currencies_and_countries_that_exist(app_id: str) -> None:
    found = get_app(app_id)
    assert found.currencies <= EXPONENTS.keys()
    assert found.countries <= COUNTRIES
    assert found.methods
    assert len({method.id for method in found.methods}) == len(found.methods)
