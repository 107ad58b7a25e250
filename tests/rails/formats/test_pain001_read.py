from __future__ import annotations

from datetime import UTC, date, datetime

import pytest

from strongroom.kernel.errors import Invalid, StrongroomError, TooLarge
from strongroom.kernel.money import Money
from strongroom.rails.contract import Address, BankAccount
from strongroom.rails.formats import _xml, pain001
from strongroom.rails.formats.pain001 import InitiatedPayment
from tests.rails.formats.published import PAIN001_03, judge
from tests.rails.formats.samples import file_of, payment

VERSION_03 = b"""<?xml version="1.0" encoding="UTF-8"?>
<Document xmlns="urn:iso:std:iso:20022:tech:xsd:pain.001.001.03">
 <CstmrCdtTrfInitn>
  <GrpHdr><MsgId>OLD-1</MsgId><CreDtTm>2026-11-20T08:00:00+01:00</CreDtTm><NbOfTxs>2</NbOfTxs>
   <CtrlSum>30.5</CtrlSum><InitgPty><Nm>Musterhaft</Nm></InitgPty></GrpHdr>
  <PmtInf><PmtInfId>B1</PmtInfId><PmtMtd>TRF</PmtMtd><BtchBookg>false</BtchBookg><ReqdExctnDt>2026-11-23</ReqdExctnDt>
   <Dbtr><Nm>Musterhaft AG</Nm></Dbtr><DbtrAcct><Id><IBAN>DE02120300000000202051</IBAN></Id></DbtrAcct>
   <DbtrAgt><FinInstnId><BIC>BYLADEM1001</BIC></FinInstnId></DbtrAgt>
   <CdtTrfTxInf><PmtId><InstrId>I-1</InstrId><EndToEndId>E-1</EndToEndId></PmtId>
    <Amt><InstdAmt Ccy="EUR">10.5</InstdAmt></Amt>
    <Cdtr><Nm>Ada</Nm>
     <PstlAdr><Ctry>NL</Ctry><AdrLine>Oudegracht 12</AdrLine><AdrLine>Utrecht</AdrLine></PstlAdr></Cdtr>
    <CdtrAcct><Id><IBAN>NL91ABNA0417164300</IBAN></Id></CdtrAcct>
    <RmtInf><Ustrd>one</Ustrd><Ustrd>two</Ustrd></RmtInf></CdtTrfTxInf>
   <CdtTrfTxInf><PmtId><EndToEndId>E-2</EndToEndId></PmtId><Amt><InstdAmt Ccy="EUR">20</InstdAmt></Amt>
    <CdtrAgt><FinInstnId><ClrSysMmbId><MmbId>123</MmbId></ClrSysMmbId></FinInstnId></CdtrAgt>
    <Cdtr><Nm>Bob</Nm></Cdtr><CdtrAcct><Id><Othr><Id>0815</Id></Othr></Id></CdtrAcct>
    <RmtInf><Strd><CdtrRefInf><Ref>RF18539007547034</Ref></CdtrRefInf></Strd></RmtInf></CdtTrfTxInf>
  </PmtInf>
 </CstmrCdtTrfInitn>
</Document>"""


def refusal(document: bytes) -> StrongroomError:
    with pytest.raises(StrongroomError) as caught:
        pain001.read(document)
    return caught.value


def test_version_03() -> None:
    judge(VERSION_03, PAIN001_03)
    file = pain001.read(VERSION_03)
    debtor = BankAccount(holder="Musterhaft AG", iban="DE02120300000000202051", bic="BYLADEM1001")
    assert (file.message_id, file.initiating_party) == ("OLD-1", "Musterhaft")
    assert file.created_at == datetime(2026, 11, 20, 7, tzinfo=UTC)
    assert [(batch.id, batch.batch_booking, batch.execution_on) for batch in file.batches] == [
        ("B1", False, date(2026, 11, 23))
    ]
    assert file.payments == [
        InitiatedPayment(
            batch_id="B1",
            instruction_id="I-1",
            end_to_end_id="E-1",
            debtor=debtor,
            creditor=BankAccount(holder="Ada", iban="NL91ABNA0417164300", address=Address(country="NL")),
            money=Money(10_50, "EUR"),
            execution_on=date(2026, 11, 23),
            remittance="one two",
            address_lines=("Oudegracht 12", "Utrecht"),
        ),
        InitiatedPayment(
            batch_id="B1",
            instruction_id="",
            end_to_end_id="E-2",
            debtor=debtor,
            creditor=BankAccount(holder="Bob", number="0815", bank_code="123"),
            money=Money(20_00, "EUR"),
            execution_on=date(2026, 11, 23),
            remittance="RF18539007547034",
        ),
    ]


@pytest.mark.parametrize(
    ("before", "after", "code"),
    [
        (b"<NbOfTxs>2", b"<NbOfTxs>3", "PAYMENT_FILE_COUNT_WRONG"),
        (b"<CtrlSum>30.5", b"<CtrlSum>30.51", "PAYMENT_FILE_CONTROL_SUM_WRONG"),
        (b"<CtrlSum>30.5", b"<CtrlSum>30.500000000001", "PAYMENT_FILE_CONTROL_SUM_WRONG"),
        (b"<CtrlSum>30.5", b"<CtrlSum>3.05e1", "PAYMENT_FILE_MALFORMED"),
        (b">10.5<", b">10.505<", "PAYMENT_FILE_MALFORMED"),
        (b">10.5<", b">-10.5<", "PAYMENT_FILE_MALFORMED"),
        (b">10.5<", b">NaN<", "PAYMENT_FILE_MALFORMED"),
        (b">10.5<", b">.<", "PAYMENT_FILE_MALFORMED"),
        (b">10.5<", b">0.00<", "PAYMENT_FILE_MALFORMED"),
        (b'Ccy="EUR">10.5', b'Ccy="XTS">10.5', "PAYMENT_FILE_MALFORMED"),
        (b'Ccy="EUR">10.5', b">10.5", "PAYMENT_FILE_MALFORMED"),
        (b"<EndToEndId>E-1</EndToEndId>", b"", "PAYMENT_FILE_MALFORMED"),
        (b"<EndToEndId>E-1", b"<EndToEndId>" + b"E" * 36, "PAYMENT_FILE_MALFORMED"),
        (b"2026-11-23", b"2026-02-30", "PAYMENT_FILE_MALFORMED"),
        (b"2026-11-20T08:00:00+01:00", b"20.11.2026", "PAYMENT_FILE_MALFORMED"),
        (b"<PmtMtd>TRF", b"<PmtMtd>CHK", "PAYMENT_FILE_MALFORMED"),
        (b"<BtchBookg>false", b"<BtchBookg>maybe", "PAYMENT_FILE_MALFORMED"),
        (b"<IBAN>NL91ABNA0417164300</IBAN>", b"", "PAYMENT_FILE_MALFORMED"),
        (b"pain.001.001.03", b"pain.001.001.02", "PAYMENT_FILE_VERSION_NOT_SUPPORTED"),
        (b"pain.001.001.03", b"pain.008.001.02", "PAYMENT_FILE_VERSION_NOT_SUPPORTED"),
        (b"</Document>", b"", "PAYMENT_FILE_MALFORMED"),
    ],
)
def test_broken_files_say_what_is_wrong(before: bytes, after: bytes, code: str) -> None:
    assert VERSION_03.count(before) >= 1
    error = refusal(VERSION_03.replace(before, after, 1))
    assert isinstance(error, Invalid)
    assert error.code == code


def test_a_wrong_version_says_which_are_read() -> None:
    error = refusal(VERSION_03.replace(b"pain.001.001.03", b"pain.001.001.13"))
    assert "pain.001.001.03 and .09" in str(error)


def test_a_file_without_payments() -> None:
    document = pain001.write(file_of(payment()))
    start, end = document.index(b"<PmtInf>"), document.index(b"</PmtInf>") + len(b"</PmtInf>")
    assert refusal(document[:start] + document[end:]).code == "PAYMENT_FILE_MALFORMED"


def test_files_over_the_limit_are_not_parsed() -> None:
    error = refusal(b" " * (_xml.MAX_DOCUMENT_BYTES + 1))
    assert isinstance(error, TooLarge)
    assert error.code == "PAYMENT_FILE_TOO_LARGE"
