"""Files we write, judged by others: the schemas in two packages, and pyiso20022's own reading of them."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyiso20022.pain.pain_001_001_09 import pain_001_001_09 as iso
from xsdata.formats.dataclass.parsers import XmlParser

from strongroom.rails.contract import Address, Payment
from strongroom.rails.formats import pain001
from strongroom.rails.formats.pain001 import Rules, split, write
from tests.rails.formats import samples
from tests.rails.formats.published import PAIN001_09, judge
from tests.rails.formats.samples import DEBTOR, TODAY, anything, file_with, payments, sepa_line

exact = payments(names=sepa_line(70), texts=sepa_line(16), remittances=sepa_line(140))
typed = payments(names=anything(100), texts=anything(50), remittances=anything(140))


def lists(payment: st.SearchStrategy[Payment]) -> st.SearchStrategy[list[Payment]]:
    return st.lists(payment, min_size=1, max_size=6, unique_by=lambda one: one.reference)


def written(chosen: list[Payment], rules: Rules) -> bytes:
    (batches,) = split(chosen, rules, not_before=TODAY)
    return write(file_with(batches, rules=rules))


@pytest.mark.parametrize("path", PAIN001_09.values(), ids=PAIN001_09.keys())
@settings(max_examples=50)
@given(chosen=lists(exact | typed), rules=samples.rules() | samples.rules(sepa_characters=False))
def test_files_follow_the_schemas_that_others_publish(path: Path, chosen: list[Payment], rules: Rules) -> None:
    judge(written(chosen, rules), path)


@pytest.mark.soak
@pytest.mark.parametrize("path", PAIN001_09.values(), ids=PAIN001_09.keys())
@settings(max_examples=2_000)
@given(chosen=lists(exact | typed), rules=samples.rules() | samples.rules(sepa_characters=False))
def test_many_files_follow_the_schemas_that_others_publish(path: Path, chosen: list[Payment], rules: Rules) -> None:
    judge(written(chosen, rules), path)


@settings(max_examples=40)
@given(chosen=lists(exact), rules=samples.rules())
def test_another_library_reads_what_we_meant(chosen: list[Payment], rules: Rules) -> None:
    document = XmlParser().from_bytes(written(chosen, rules), iso.Document)
    initiation = document.cstmr_cdt_trf_initn
    total = sum((payment.money.decimal for payment in chosen), Decimal(0))
    assert (initiation.grp_hdr.nb_of_txs, initiation.grp_hdr.ctrl_sum) == (str(len(chosen)), total)
    read = {}
    for batch in initiation.pmt_inf:
        amounts = [transfer.amt.instd_amt.value for transfer in batch.cdt_trf_tx_inf]
        assert (batch.nb_of_txs, batch.ctrl_sum) == (str(len(amounts)), sum(amounts))
        assert batch.btch_bookg is rules.batch_booking
        assert batch.dbtr.nm == DEBTOR.holder
        assert batch.dbtr_acct.id.iban == DEBTOR.iban
        assert batch.dbtr_agt.fin_instn_id.bicfi == DEBTOR.bic
        for transfer in batch.cdt_trf_tx_inf:
            read[transfer.pmt_id.end_to_end_id] = (transfer, batch.reqd_exctn_dt.dt.to_date())
    assert list(read) == [p.reference for p in sorted(chosen, key=lambda p: max(p.due_on, TODAY))]
    for payment in chosen:
        transfer, execution_on = read[payment.reference]
        creditor = payment.counterparty
        assert transfer.pmt_id.instr_id == payment.reference
        assert transfer.amt.instd_amt.value == payment.money.decimal
        assert transfer.amt.instd_amt.ccy == "EUR"
        assert execution_on == max(payment.due_on, TODAY)
        assert transfer.cdtr.nm == creditor.holder
        assert transfer.cdtr_acct.id.iban == creditor.iban
        assert (transfer.cdtr_agt.fin_instn_id.bicfi if transfer.cdtr_agt else "") == creditor.bic
        assert (transfer.rmt_inf.ustrd if transfer.rmt_inf else []) == (
            [payment.remittance] if payment.remittance else []
        )
        if creditor.address is None or not creditor.address.town:
            assert transfer.cdtr.pstl_adr is None
        else:
            _compare_address(transfer.cdtr.pstl_adr, creditor.address, rules)


def _compare_address(read: iso.PostalAddress24, meant: Address, rules: Rules) -> None:
    assert (read.twn_nm, read.ctry) == (meant.town, meant.country)
    assert (read.pst_cd or "", read.ctry_sub_dvsn or "") == (meant.post_code, meant.region)
    street = (read.strt_nm or "", read.bldg_nb or "")
    if rules.address_style is pain001.AddressStyle.STRUCTURED:
        assert street == (meant.street, meant.building)
        assert read.adr_line == []
    else:
        assert street == ("", "")
        assert " ".join(read.adr_line) == f"{meant.street} {meant.building}".strip()


@given(chosen=lists(exact), rules=samples.rules())
def test_we_read_what_we_wrote(chosen: list[Payment], rules: Rules) -> None:
    file = pain001.read(written(chosen, rules))
    found = {payment.end_to_end_id: payment for payment in file.payments}
    assert file.message_id == "MSG-1"
    assert found.keys() == {payment.reference for payment in chosen}
    for payment in chosen:
        one = found[payment.reference]
        assert (one.money, one.remittance) == (payment.money, payment.remittance)
        assert one.execution_on == max(payment.due_on, TODAY)
        assert (one.creditor.holder, one.creditor.iban) == (payment.counterparty.holder, payment.counterparty.iban)
        assert (one.debtor.holder, one.debtor.iban) == (DEBTOR.holder, DEBTOR.iban)
