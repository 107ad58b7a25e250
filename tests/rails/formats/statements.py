"""Statements in every version's own words, built by hand and independent of what we write ourselves.

The versions differ in three ways that matter here: version 2 has `BIC` and no amount of a transaction but in `AmtDtls`;
up to 6 a status is a bare code and a party stands without `Pty`; from 7 on it is as it is today.
"""

from __future__ import annotations

OWN = "DE02120300000000202051"
OTHER = "NL91ABNA0417164300"


def amount(value: str, tag: str = "Amt", currency: str = "EUR") -> str:
    return f'<{tag} Ccy="{currency}">{value}</{tag}>'


def party(role: str, name: str, iban: str, version: int) -> str:
    inner = f"<Nm>{name}</Nm>"
    if version >= 7:
        inner = f"<Pty>{inner}</Pty>"
    return f"<{role}>{inner}</{role}><{role}Acct><Id><IBAN>{iban}</IBAN></Id></{role}Acct>"


def detail(
    version: int, end_to_end_id: str, value: str, *, credit: bool = False, returned: str = "", parties: bool = True
) -> str:
    """A transaction from our account to the other; a returned one keeps its parties."""
    if version == 2:
        money = f"<AmtDtls><TxAmt>{amount(value)}</TxAmt></AmtDtls>"
    else:
        money = f"{amount(value)}<CdtDbtInd>{'CRDT' if credit else 'DBIT'}</CdtDbtInd>"
    ours, theirs = ("Cdtr", "Dbtr") if credit and not returned else ("Dbtr", "Cdtr")
    roles = {ours: ("Musterhaft AG", OWN), theirs: ("Ada", OTHER)}
    named = "".join(party(role, *roles[role], version) for role in ("Dbtr", "Cdtr")) if parties else ""
    bic = "BIC" if version == 2 else "BICFI"
    agent = f"<RltdAgts><{theirs}Agt><FinInstnId><{bic}>ABNANL2A</{bic}></FinInstnId></{theirs}Agt></RltdAgts>"
    back = f"<RtrInf><Rsn><Cd>{returned}</Cd></Rsn><AddtlInf>closed</AddtlInf></RtrInf>" if returned else ""
    return f"""<TxDtls><Refs><MsgId>MSG-1</MsgId><AcctSvcrRef>BANK-{end_to_end_id}</AcctSvcrRef>
      <PmtInfId>MSG-1001</PmtInfId><InstrId>I-{end_to_end_id}</InstrId><EndToEndId>{end_to_end_id}</EndToEndId></Refs>{money}
      <RltdPties>{named}</RltdPties>{agent}<RmtInf><Ustrd>Claim</Ustrd><Ustrd>4711</Ustrd></RmtInf>{back}</TxDtls>"""


def entry(
    version: int,
    value: str,
    *details: str,
    credit: bool = False,
    status: str = "BOOK",
    reversal: str = "",
    dates: str = "",
) -> str:
    said = f"<Sts><Cd>{status}</Cd></Sts>" if version >= 7 else f"<Sts>{status}</Sts>"
    undoes = f"<RvslInd>{reversal}</RvslInd>" if reversal else ""
    dates = dates or "<BookgDt><Dt>2026-11-20</Dt></BookgDt><ValDt><DtTm>2026-11-21T00:00:00+01:00</DtTm></ValDt>"
    inside = f"<NtryDtls>{''.join(details)}</NtryDtls>" if details else ""
    return f"""<Ntry><NtryRef>N-1</NtryRef>{amount(value)}<CdtDbtInd>{"CRDT" if credit else "DBIT"}</CdtDbtInd>
      {undoes}{said}{dates}<AcctSvcrRef>BANK-1</AcctSvcrRef>
      <BkTxCd><Domn><Cd>PMNT</Cd><Fmly><Cd>ICDT</Cd><SubFmlyCd>ESCT</SubFmlyCd></Fmly></Domn></BkTxCd>{inside}<AddtlNtryInf>SEPA</AddtlNtryInf></Ntry>"""


def balance(code: str, value: str, *, credit: bool = True) -> str:
    return f"""<Bal><Tp><CdOrPrtry><Cd>{code}</Cd></CdOrPrtry></Tp>{amount(value)}
      <CdtDbtInd>{"CRDT" if credit else "DBIT"}</CdtDbtInd><Dt><Dt>2026-11-20</Dt></Dt></Bal>"""


def account(version: int, own: str = f"<IBAN>{OWN}</IBAN>") -> str:
    bic = "BIC" if version == 2 else "BICFI"
    return f"""<Acct><Id>{own}</Id><Ccy>EUR</Ccy><Ownr><Nm>Musterhaft AG</Nm></Ownr>
      <Svcr><FinInstnId><{bic}>BYLADEM1001</{bic}></FinInstnId></Svcr></Acct>"""


def statement(version: int, *parts: str, identity: str = "S-1", own: str = f"<IBAN>{OWN}</IBAN>") -> str:
    return f"""<Stmt><Id>{identity}</Id><ElctrncSeqNb>17</ElctrncSeqNb><CreDtTm>2026-11-20T23:00:00Z</CreDtTm>
      <CpyDplctInd>DUPL</CpyDplctInd>{account(version, own)}{"".join(parts)}</Stmt>"""


def document(version: int, *statements: str) -> bytes:
    return f"""<?xml version="1.0" encoding="UTF-8"?>
      <Document xmlns="urn:iso:std:iso:20022:tech:xsd:camt.053.001.{version:02}"><BkToCstmrStmt>
      <GrpHdr><MsgId>M-1</MsgId><CreDtTm>2026-11-20T23:00:00Z</CreDtTm></GrpHdr>{"".join(statements)}
      </BkToCstmrStmt></Document>""".strip().encode()


def notification(version: int, *entries: str) -> bytes:
    return f"""<Document xmlns="urn:iso:std:iso:20022:tech:xsd:camt.054.001.{version:02}"><BkToCstmrDbtCdtNtfctn>
      <GrpHdr><MsgId>M-1</MsgId><CreDtTm>2026-11-20T23:00:00Z</CreDtTm></GrpHdr>
      <Ntfctn><Id>N-1</Id><ElctrncSeqNb>18</ElctrncSeqNb><CreDtTm>2026-11-20T23:00:00Z</CreDtTm>{account(version)}
      {"".join(entries)}</Ntfctn></BkToCstmrDbtCdtNtfctn></Document>""".encode()


def usual(version: int) -> bytes:
    """A batch of two, the return of one of them, a single payment in, one pending: 1000.00 becomes 880.00."""
    two = detail(version, "E-1", "100.00") + detail(version, "E-2", "50.50")
    return document(
        version,
        statement(
            version,
            balance("OPBD", "1000.00"),
            balance("CLBD", "880"),
            entry(version, "150.50", two),
            entry(version, "50.5", detail(version, "E-2", "50.50", credit=True, returned="AC04"), credit=True),
            entry(version, "10.00", status="PDNG", dates="<ValDt><Dt>2026-11-22</Dt></ValDt>"),
            entry(version, "20.00", detail(version, "E-9", "20.00")),
        ),
    )
