"""The fifty promises: what strongroom stands for, and what each answers to in the standards.

References are ids only: PCI DSS 4.0.1 (`pci`), ISO/IEC 27001:2022 Annex A (`iso`), GDPR articles (`gdpr`) and OWASP
ASVS 5.0 (`asvs`). None is given where the fit would be a guess.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final


class Group(enum.StrEnum):
    """The chapters of the list."""

    ACCESS = "Secure access"
    DATA = "Data protection"
    AVAILABILITY = "Availability"
    NETWORK = "Network"
    MONITORING = "Monitoring and response"
    ASSURANCE = "Assurance"
    PRIVACY = "Privacy"
    PAYMENTS = "Payments"


@dataclass(frozen=True, slots=True, kw_only=True)
class References:
    """Where a promise stands in the standards."""

    pci: tuple[str, ...] = ()
    iso: tuple[str, ...] = ()
    gdpr: tuple[str, ...] = ()
    asvs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Promise:
    """One promise."""

    id: str
    sentence: str
    references: References

    @property
    def group(self) -> Group:
        """Its chapter."""
        return _GROUPS[self.id.partition("-")[0]]


_GROUPS: Final[Mapping[str, Group]] = dict(
    zip(("ACC", "ENC", "AVL", "NET", "MON", "ASR", "PRV", "PAY"), Group, strict=True)
)


def _promise(id_: str, sentence: str, *, pci: str = "", iso: str = "", gdpr: str = "", asvs: str = "") -> Promise:
    return Promise(
        id_,
        sentence,
        References(pci=tuple(pci.split()), iso=tuple(iso.split()), gdpr=tuple(gdpr.split()), asvs=tuple(asvs.split())),
    )


PROMISES: Final[tuple[Promise, ...]] = (
    _promise(
        "ACC-1",
        "People get in only through an encrypted invitation link, with which they set up secure credentials.",
        pci="8.3.1 8.4.2",
        iso="5.16 5.17 8.5",
        asvs="6.2.12 6.3.3 6.3.4 11.4.2",
    ),
    _promise(
        "ACC-2",
        "Accounts can sign their people in through their own identity provider, and leave it the last word.",
        iso="5.16 8.5",
        asvs="6.8.1 6.8.2 6.8.3",
    ),
    _promise(
        "ACC-3",
        "An account or tenant can say from which IP addresses it is used; everybody else is refused.",
        iso="8.3 8.20",
        asvs="4.1.3 8.2.4 15.3.4",
    ),
    _promise(
        "ACC-4",
        "Privileges in the account portal, where things are configured, are granular and securely controlled.",
        pci="7.2.1 7.2.2",
        iso="5.15 5.18 8.3",
        asvs="8.1.1 8.2.1 8.3.1",
    ),
    _promise(
        "ACC-5",
        "Privileges in the tenant portal, where money is moved, are as granular, with limits and approvals.",
        pci="7.2.1 7.2.2",
        iso="5.3 5.15 8.3",
        asvs="2.3.2 2.3.5 7.5.3 8.2.1",
    ),
    _promise(
        "ACC-6",
        "The API is used with access tokens only, made from API keys that were created on the platform.",
        pci="8.6.1 8.6.2",
        iso="5.17 8.5",
        asvs="7.2.2 7.4.1 9.1.1 9.1.2 9.2.1 9.2.3",
    ),
    _promise(
        "ACC-7",
        "Access is monitored all the time and audited regularly.",
        pci="7.2.4 8.2.6 10.2.1 10.4.1",
        iso="5.18 8.15 8.16",
        asvs="16.3.1 16.3.2",
    ),
    _promise(
        "ENC-1",
        "All traffic is encrypted from end to end; every interface speaks TLS and nothing else.",
        pci="2.2.7 4.2.1",
        iso="5.14 8.20 8.24",
        gdpr="32(1)(a)",
        asvs="3.4.1 12.1.1 12.1.2 12.2.1 12.3.1 12.3.2",
    ),
    _promise(
        "ENC-2",
        "All transaction data is encrypted at rest with AES-256.",
        pci="3.5.1 3.6.1",
        iso="8.24",
        gdpr="32(1)(a)",
        asvs="11.3.2 11.3.3 14.2.4",
    ),
    _promise(
        "ENC-3",
        "Fields about a customer's people are encrypted once more with AES-256, under the customer's own key.",
        pci="3.6.1 3.7.1 3.7.4 3.7.5",
        iso="8.24",
        gdpr="32(1)(a)",
        asvs="11.1.1 13.3.1 13.3.3",
    ),
    _promise(
        "ENC-4",
        "Card data is safe while it is processed, handled, stored and transmitted (PCI DSS level 1).",
        pci="3.2.1 3.3.1 3.4.1 3.5.1 3.5.1.1 4.2.1",
        iso="8.11 8.24",
        asvs="14.2.4 14.2.6",
    ),
    _promise(
        "ENC-5",
        "Data is kept apart completely: team from team, country from country, region from region.",
        iso="8.3",
        gdpr="32(1)(b)",
        asvs="8.2.2 8.4.1",
    ),
    _promise(
        "ENC-6",
        "Each customer chooses where its data lives, and it lives nowhere else.",
        iso="5.31 5.34",
        gdpr="44",
    ),
    _promise("AVL-1", "The platform is up 99.95 % of the time.", iso="8.6 8.14", gdpr="32(1)(b)"),
    _promise("AVL-2", "Everything runs replicated over fault zones.", iso="8.14", gdpr="32(1)(b)"),
    _promise(
        "AVL-3",
        "A transaction is accepted only once it is safe in a second data centre; none is ever lost.",
        iso="5.30 8.14",
        gdpr="32(1)(b)",
    ),
    _promise("AVL-4", "In a disaster another region takes over.", iso="5.29 5.30", gdpr="32(1)(c)"),
    _promise("AVL-5", "All databases are backed up, and restoring them is rehearsed.", iso="8.13", gdpr="32(1)(c)"),
    _promise(
        "NET-1",
        "Back ends live in private networks, hub and spoke, out of reach of public ones.",
        pci="1.3.1 1.4.1 1.4.4",
        iso="8.20 8.22",
    ),
    _promise(
        "NET-2",
        "Services trust each other no further than each can prove who it is, and may do no more than it needs.",
        pci="7.2.5",
        iso="8.3 8.20 8.22",
        asvs="12.3.5 13.2.1 13.2.2 13.2.4",
    ),
    _promise("NET-3", "A web application firewall stands in front.", pci="6.4.2", iso="8.20 8.26"),
    _promise(
        "NET-4",
        "Intrusions are detected and prevented; advanced threats are looked for.",
        pci="11.5.1",
        iso="5.7 8.16",
        asvs="2.4.1 6.3.1 6.3.5",
    ),
    _promise("NET-5", "Attempts to deny service are held off.", iso="8.6 8.20", asvs="2.4.1 15.2.2"),
    _promise("MON-1", "Operations and support are told of anomalies in production.", pci="10.7.2", iso="8.16"),
    _promise(
        "MON-2",
        "Sandbox and production are both watched: availability, processors, memory, disks, and what matters besides.",
        iso="8.6 8.16",
    ),
    _promise(
        "MON-3",
        "Logs are monitored and archived all the time.",
        pci="10.3.3 10.4.1 10.5.1",
        iso="8.15",
        asvs="16.2.5 16.4.2 16.4.3",
    ),
    _promise("MON-4", "Dashboards bring the internal systems together in one view.", iso="8.16"),
    _promise("MON-5", "Administrators and end users have a ticket system.", iso="6.8"),
    _promise(
        "MON-6",
        "Incidents are managed around the clock: on call, escalated, mitigated fast, and learnt from.",
        pci="12.10.1 12.10.3",
        iso="5.24 5.25 5.26 5.27",
        gdpr="33 34",
    ),
    _promise(
        "ASR-1",
        "Every build is attacked and scanned for weaknesses before it ships.",
        pci="6.2.3 6.3.1 11.3.1",
        iso="8.8 8.29",
        gdpr="32(1)(d)",
        asvs="15.2.1",
    ),
    _promise("ASR-2", "What external testers find is tracked until it is fixed.", pci="11.4.3 11.4.4", iso="5.35 8.8"),
    _promise(
        "ASR-3",
        "Information security is managed as a system, after ISO 27001.",
        pci="12.1.1 12.3.1",
        iso="5.1 5.36",
    ),
    _promise(
        "ASR-4",
        "Policies exist, are reviewed, rehearsed and acknowledged: continuity, incidents, recovery and more.",
        pci="12.1.1 12.1.2 12.10.2",
        iso="5.1 5.29 5.30",
        gdpr="24(2)",
    ),
    _promise(
        "ASR-5",
        "Everybody completes training in security and privacy.",
        pci="12.6.1 12.6.3",
        iso="6.3",
        gdpr="39(1)(b)",
    ),
    _promise(
        "ASR-6",
        "Confidentiality agreements bind staff, contractors and processors alike.",
        pci="12.8.2",
        iso="5.20 6.6",
        gdpr="28(3)(b)",
    ),
    _promise("ASR-7", "Certifications and exemptions are current.", iso="5.31 5.36"),
    _promise(
        "ASR-8",
        "Nothing in the record can be altered unseen.",
        pci="10.3.2 10.3.4",
        iso="5.28 5.33 8.15",
        asvs="16.4.2",
    ),
    _promise(
        "PRV-1", "Data is processed only for the purpose for which it was collected.", iso="5.34", gdpr="5(1)(b) 6"
    ),
    _promise(
        "PRV-2",
        "Only what is necessary is collected, and kept for the least time.",
        pci="3.2.1",
        iso="5.34 8.10",
        gdpr="5(1)(c) 5(1)(e)",
        asvs="14.2.7",
    ),
    _promise(
        "PRV-3",
        "People have their rights: access, portability, rectification, erasure.",
        iso="5.34 8.10",
        gdpr="15 16 17 19 20",
    ),
    _promise("PRV-4", "Privacy is built in; its impact is assessed and reviewed.", iso="5.34", gdpr="25 35"),
    _promise(
        "PRV-5",
        "Every processor has a data-processing agreement, checked and approved before it is signed.",
        pci="12.8.1 12.8.2 12.8.3",
        iso="5.19 5.20",
        gdpr="28",
    ),
    _promise("PRV-6", "Nothing leaves the EEA without a safeguard.", iso="5.14 5.34", gdpr="44 45 46"),
    _promise(
        "PRV-7",
        "Only necessary cookies are set; others never without consent.",
        gdpr="6(1)(a) 7",
        asvs="3.3.1 3.3.2",
    ),
    _promise(
        "PRV-8",
        "There is a data-protection officer, and a record that accounts for everything.",
        gdpr="5(2) 30 37 38 39",
    ),
    _promise(
        "PRV-9",
        "Data is never sold, nor given to anyone who isn't on the register.",
        iso="5.34 8.12",
        gdpr="28 30(1)(d)",
        asvs="13.2.4 13.2.5 14.2.3",
    ),
    _promise("PAY-1", "One API collects from customers and pays them, through many providers and bank rails."),
    _promise("PAY-2", "An instruction is executed once.", asvs="2.3.3 15.4.2"),
    _promise(
        "PAY-3", "Sandbox and production are separate worlds.", pci="6.5.3 6.5.5 6.5.6", iso="8.31", asvs="9.2.3 15.2.3"
    ),
    _promise("PAY-4", "What the bank says happened is reconciled with what was instructed.", iso="5.33"),
)
"""All of them, in the list's order."""
