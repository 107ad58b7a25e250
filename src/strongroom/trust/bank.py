"""A bank's statement, as small as it gets: what reconciliation is shown when checks need it to keep something."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from html import escape

SETTINGS = {
    "bic": "COBADEFFXXX",
    "street": "Hauptstrasse",
    "building": "1",
    "postCode": "60311",
    "town": "Frankfurt am Main",
    "country": "DE",
}
"""What the app for SEPA files wants to know besides `holder` and `iban`."""


def statement(*, iban: str, amount: Decimal, text: str, day: date) -> bytes:
    """A camt.053.001.08 with one credit that nobody instructed (ISO 20022, BankToCustomerStatementV08)."""
    said, money = escape(text), f'<Amt Ccy="EUR">{amount}</Amt>'

    def balance(kind: str, value: str) -> str:
        return (
            f"<Bal><Tp><CdOrPrtry><Cd>{kind}</Cd></CdOrPrtry></Tp>{value}<CdtDbtInd>CRDT</CdtDbtInd>"
            f"<Dt><Dt>{day}</Dt></Dt></Bal>"
        )

    return f"""<?xml version="1.0" encoding="UTF-8"?>
<Document xmlns="urn:iso:std:iso:20022:tech:xsd:camt.053.001.08"><BkToCstmrStmt>
<GrpHdr><MsgId>{said[:35]}</MsgId><CreDtTm>{day}T06:00:00Z</CreDtTm></GrpHdr>
<Stmt><Id>{said[:35]}</Id><ElctrncSeqNb>1</ElctrncSeqNb><CreDtTm>{day}T06:00:00Z</CreDtTm>
<Acct><Id><IBAN>{iban}</IBAN></Id><Ccy>EUR</Ccy></Acct>
{balance("OPBD", '<Amt Ccy="EUR">0.00</Amt>')}{balance("CLBD", money)}
<Ntry><NtryRef>1</NtryRef>{money}<CdtDbtInd>CRDT</CdtDbtInd><Sts><Cd>BOOK</Cd></Sts>
<BookgDt><Dt>{day}</Dt></BookgDt><ValDt><Dt>{day}</Dt></ValDt><AcctSvcrRef>{said[:35]}</AcctSvcrRef>
<BkTxCd><Domn><Cd>PMNT</Cd><Fmly><Cd>RCDT</Cd><SubFmlyCd>ESCT</SubFmlyCd></Fmly></Domn></BkTxCd>
<NtryDtls><TxDtls><Refs><EndToEndId>{said[:35]}</EndToEndId></Refs>{money}<CdtDbtInd>CRDT</CdtDbtInd>
<RltdPties><Dbtr><Pty><Nm>{said}</Nm></Pty></Dbtr><DbtrAcct><Id><IBAN>{iban}</IBAN></Id></DbtrAcct></RltdPties>
<RmtInf><Ustrd>{said}</Ustrd></RmtInf></TxDtls></NtryDtls></Ntry></Stmt></BkToCstmrStmt></Document>
""".encode()
