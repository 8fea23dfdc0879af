"""The chart of accounts, and the kinds of entries that move money between them.

An entry takes its amount from the debit account and gives it to the credit account. A payer has an
account per grant, and per month one for each kind of due; the house's live for ever and are made
by the migrations.
"""

from enum import IntEnum, StrEnum


class HouseAccount(IntEnum):
    """The house's accounts; the value is the row's id."""

    GRANTED = 1  # where monthly and promotional credit comes from: what was given, less reversals
    COGS = 2  # what calls cost: its credits are owed to providers, or earned by own hardware
    OVERRUN = 3  # cost beyond a hard stop, borne by the house
    FORGIVEN = 4  # cost that came after the hold was given up, borne by the house
    FAILOVER_LOSS = -1  # what failed attempts cost, borne by the house
    SOLD = -2  # where purchased credit comes from
    EXPIRED = -3  # where credit goes that was not used in time
    ADJUSTED = -4  # the other side of an operator's adjustments
    FEES = -5  # what tiers cost: earned by the house
    ENDPOINTS = -6  # what dedicated endpoints cost: earned by own hardware
    PROBES = -7  # what trying the offers costs, borne by the house


class GrantKind(StrEnum):
    """Why credit was given; also the kind of its account."""

    MONTHLY = "monthly"
    PROMOTIONAL = "promotional"
    PURCHASED = "purchased"
    ADJUSTMENT = "adjustment"


class DueKind(StrEnum):
    """Why a payer owes money for a month; also the kind of its account."""

    OVERAGE = "overage"  # what calls cost past the credit
    FEE = "fee"  # the tier's price
    ENDPOINT = "endpoint"  # dedicated endpoints


class EntryKind(StrEnum):
    """Why money moved. A subject has at most one entry of a kind between the same accounts."""

    GRANT = "grant"  # house granted → payer's grant
    REVERSAL = "reversal"  # payer's grant → house granted
    PURCHASE = "purchase"  # house sold → payer's grant
    EXPIRY = "expiry"  # payer's grant → house expired
    CHARGE = "charge"  # payer's grant → house cogs
    OVERAGE = "overage"  # payer's overage → house cogs
    OVERRUN = "overrun"  # house overrun → house cogs
    FORGIVEN = "forgiven"  # house forgiven → house cogs
    FAILOVER_LOSS = "failover_loss"  # house failover_loss → house cogs
    ADJUSTMENT = "adjustment"  # house adjusted → payer's grant, or payer's grant or overage → there
    FEE = "fee"  # payer's fee → house fees
    ENDPOINT = "endpoint"  # payer's grant or endpoint → house endpoints
    PROBE = "probe"  # house probes → house cogs


AMOUNT_NANO_USD_MAX = 10**18
"""A billion dollars: no single amount is larger."""

SUM_NANO_USD_MAX = 4 * 10**18
"""What a payer's credit, or what is owed for a month, may add up to: far from the 64-bit edge."""
