"""The chart of accounts, and the kinds of entries that move money between them.

An entry takes its amount from the debit account and gives it to the credit account. Every payer
has two accounts per UTC month; the house's live for ever and are made by the first migration.
"""

from enum import IntEnum, StrEnum


class HouseAccount(IntEnum):
    """The house's accounts; the value is the row's id."""

    GRANTED = 1  # where granted credit comes from: its debits are all that was ever given
    COGS = 2  # what calls cost: its credits are owed to providers, or earned by own hardware
    OVERRUN = 3  # cost beyond a hard stop, borne by the house
    FORGIVEN = 4  # cost that came after the hold was given up, borne by the house


class PayerAccount(StrEnum):
    """A payer's accounts of one month."""

    GRANT = "grant"  # credits: the month's credit; debits: what calls used of it
    OVERAGE = "overage"  # debits: what calls cost past the credit, to be billed


class EntryKind(StrEnum):
    """Why money moved. A call or grant (the entry's subject) has at most one entry of each kind."""

    GRANT = "grant"  # house granted → payer grant
    CHARGE = "charge"  # payer grant → house cogs
    OVERAGE = "overage"  # payer overage → house cogs
    OVERRUN = "overrun"  # house overrun → house cogs
    FORGIVEN = "forgiven"  # house forgiven → house cogs


AMOUNT_NANO_USD_MAX = 10**18
"""A billion dollars: no single amount is larger, so sums stay far from the 64-bit edge."""
