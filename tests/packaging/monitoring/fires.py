"""When each alert is to fire: series of samples a minute apart, in promtool's notation, laid over
those of a healthy appliance. ``others`` are alerts that may fire along with it.
"""

from typing import NamedTuple

I = 'instance="a:1",job="turnpike"'  # noqa: E741
OFFER = f'{I},model="m",provider="p"'
MODEL = f'{I},model="m"'
LABELS = {"instance": "a:1", "job": "turnpike"}
OF_OFFER = {**LABELS, "model": "m", "provider": "p"}

HEALTHY = {
    f"up{{{I}}}": "1x180",
    f"turnpike_ready{{{I}}}": "1x180",
    f"turnpike_journal_sound{{{I}}}": "1x180",
    f"turnpike_journal_check_age_seconds{{{I}}}": "0+20x180",
    f'turnpike_http_responses_total{{class="2xx",{I}}}': "0+600x180",
    f'turnpike_http_responses_total{{class="5xx",{I}}}': "0+6x180",
    f'turnpike_calls_total{{outcome="completed",{OFFER}}}': "0+500x180",
    f'turnpike_calls_total{{outcome="failed",{OFFER}}}': "0+5x180",
    f'turnpike_first_token_seconds_bucket{{le="0.5",{OFFER}}}': "0+490x180",
    f'turnpike_first_token_seconds_bucket{{le="30.0",{OFFER}}}': "0+500x180",
    f'turnpike_first_token_seconds_bucket{{le="+Inf",{OFFER}}}': "0+500x180",
    f"turnpike_holds_open{{{I}}}": "300x180",
    f"turnpike_calls_running{{{I}}}": "20x180",
    f"turnpike_oldest_hold_age_seconds{{{I}}}": "900x180",
    f'turnpike_calls_refused_total{{code="insufficient_quota",status="402",{I}}}': "0+1x180",
    f'turnpike_provider_keys{{provider="p",state="refused",{I}}}': "0x180",
    f'turnpike_failed_attempts_total{{kind="rate_limited",provider="p",{I}}}': "0+1x180",
    f"turnpike_clock_in_doubt{{{I}}}": "0x180",
    f"turnpike_clock_lead_seconds{{{I}}}": "300x180",
    f'turnpike_local_state{{state="failed",{MODEL}}}': "0x180",
    f"turnpike_local_crashes_total{{{MODEL}}}": "2x180",
    f"turnpike_local_out_of_memory_total{{{MODEL}}}": "1x180",
    f"turnpike_local_calls_waiting{{{MODEL}}}": "2x180",
    f'turnpike_ledger_commit_seconds_bucket{{le="0.01",{I}}}': "0+999x180",
    f'turnpike_ledger_commit_seconds_bucket{{le="5.0",{I}}}': "0+1000x180",
    f'turnpike_ledger_commit_seconds_bucket{{le="+Inf",{I}}}': "0+1000x180",
    f"turnpike_ledger_queue_length{{{I}}}": "3x180",
    f'turnpike_database_bytes{{file="wal",{I}}}': "60000000x180",
    f'turnpike_event_loop_lag_seconds_bucket{{le="0.005",{I}}}': "0+58x180",
    f'turnpike_event_loop_lag_seconds_bucket{{le="5.0",{I}}}': "0+60x180",
    f'turnpike_event_loop_lag_seconds_bucket{{le="+Inf",{I}}}': "0+60x180",
    f"turnpike_disk_low{{{I}}}": "0x180",
    f"turnpike_disk_ballast_bytes{{{I}}}": "67108864x180",
    f"turnpike_event_loop_stalls_total{{{I}}}": "1x180",
    f'turnpike_task_late_seconds{{task="tick",{I}}}': "1x180",
    f'turnpike_task_late_seconds{{task="back up",{I}}}': "1800x180",
    f"turnpike_disk_free_bytes{{{I}}}": "80000000000x180",
    f"turnpike_backup_last_success_timestamp_seconds{{{I}}}": "0+60x1800",
    f"turnpike_backup_failures_total{{{I}}}": "1x180",
    f"process_open_fds{{{I}}}": "200x180",
    f"process_max_fds{{{I}}}": "1000x180",
    f"process_start_time_seconds{{{I}}}": "1000x180",
    f"turnpike_log_lines_lost_total{{{I}}}": "0x180",
    f'turnpike_trace_spans_total{{result="sent",{I}}}': "0+600x180",
    f'turnpike_trace_spans_total{{result="unreachable",{I}}}': "3x180",
}


class Fires(NamedTuple):
    """What is different, from when on it fires, and the labels that it then has."""

    series: dict[str, str]
    labels: dict[str, str] = LABELS
    at: str = "30m"
    others: frozenset[str] = frozenset()


ONE = {"instance": "a:1"}
FIRES = {
    "TurnpikeDown": Fires({f"up{{{I}}}": "1x10 0x170"}),
    "TurnpikeNotReady": Fires({f"turnpike_ready{{{I}}}": "1x10 0x170"}),
    "TurnpikeLedgerStopped": Fires(
        {f'turnpike_problem{{part="ledger",{I}}}': "_x10 1x170"}, {**LABELS, "part": "ledger"}
    ),
    "TurnpikeJournalDamaged": Fires({f"turnpike_journal_sound{{{I}}}": "1x29 0x170"}),
    "TurnpikeJournalUnchecked": Fires(
        {f"turnpike_journal_check_age_seconds{{{I}}}": "10000+60x180"}
    ),
    "TurnpikeManyErrors": Fires(
        {f'turnpike_http_responses_total{{class="5xx",{I}}}': "0+60x180"}, ONE
    ),
    "TurnpikeCallsFail": Fires(
        {f'turnpike_calls_total{{outcome="failed",{OFFER}}}': "0+200x180"},
        {**ONE, "provider": "p"},
    ),
    "TurnpikeFirstTokenSlow": Fires(
        {f'turnpike_first_token_seconds_bucket{{le="0.5",{OFFER}}}': "0+300x180"},
        {**ONE, "provider": "p", "model": "m"},
    ),
    "TurnpikeHoldsGrow": Fires({f"turnpike_holds_open{{{I}}}": "200+2x180"}, at="70m"),
    "TurnpikeHoldTooOld": Fires({f"turnpike_oldest_hold_age_seconds{{{I}}}": "7000+60x180"}),
    "TurnpikeManyWithoutMoney": Fires(
        {
            f'turnpike_calls_refused_total{{code="insufficient_quota",status="402",{I}}}': (
                "0+1x1480 1500+20x60"
            ),
        },
        ONE,
        at="25h20m",
    ),
    "TurnpikeProviderKeyRefused": Fires(
        {f'turnpike_provider_keys{{provider="p",state="refused",{I}}}': "0x5 1x170"},
        {**LABELS, "provider": "p", "state": "refused"},
    ),
    "TurnpikeCircuitOpen": Fires({f"turnpike_circuit_open{{{OFFER}}}": "_x5 1x170"}, OF_OFFER),
    "TurnpikeProviderLimited": Fires(
        {f'turnpike_failed_attempts_total{{kind="rate_limited",provider="p",{I}}}': "0+10x180"},
        {**ONE, "provider": "p"},
        at="40m",
    ),
    "TurnpikeModelFailed": Fires(
        {f'turnpike_local_state{{state="failed",{MODEL}}}': "0x5 1x170"},
        {**LABELS, "model": "m", "state": "failed"},
    ),
    "TurnpikeModelCrashes": Fires(
        {f"turnpike_local_crashes_total{{{MODEL}}}": "0x10 1x170"}, {**LABELS, "model": "m"}
    ),
    "TurnpikeClockInDoubt": Fires({f"turnpike_clock_in_doubt{{{I}}}": "0x5 1x175"}),
    "TurnpikeClockBehind": Fires({f"turnpike_clock_lead_seconds{{{I}}}": "0x5 90000x175"}),
    "TurnpikeBallastUsed": Fires({f"turnpike_disk_ballast_bytes{{{I}}}": "67108864x5 0x175"}),
    "TurnpikeLoopHeldUp": Fires({f"turnpike_event_loop_stalls_total{{{I}}}": "1x20 1+1x160"}),
    "TurnpikeTaskLate": Fires(
        {f'turnpike_task_late_seconds{{task="tick",{I}}}': "1x5 1000+60x175"},
        {**LABELS, "task": "tick"},
    ),
    "TurnpikeModelOutOfMemory": Fires(
        {f"turnpike_local_out_of_memory_total{{{MODEL}}}": "1x10 2x170"}, {**LABELS, "model": "m"}
    ),
    "TurnpikeModelCrowded": Fires(
        {f"turnpike_local_calls_waiting{{{MODEL}}}": "2x5 12x170"}, {**LABELS, "model": "m"}
    ),
    "TurnpikeLedgerSlow": Fires(
        {f'turnpike_ledger_commit_seconds_bucket{{le="0.01",{I}}}': "0+900x180"}, ONE
    ),
    "TurnpikeLedgerQueued": Fires({f"turnpike_ledger_queue_length{{{I}}}": "3x5 900x170"}),
    "TurnpikeWalGrows": Fires(
        {f'turnpike_database_bytes{{file="wal",{I}}}': "2000000000x180"},
        {**LABELS, "file": "wal"},
        at="40m",
    ),
    "TurnpikeEventLoopLate": Fires(
        {f'turnpike_event_loop_lag_seconds_bucket{{le="0.005",{I}}}': "0+20x180"}, ONE
    ),
    "TurnpikeDiskFull": Fires({f"turnpike_disk_low{{{I}}}": "0x10 1x170"}),
    "TurnpikeDiskFills": Fires(
        {f"turnpike_disk_free_bytes{{{I}}}": "80000000000-100000000x180"}, at="70m"
    ),
    "TurnpikeBackupOld": Fires(
        {f"turnpike_backup_last_success_timestamp_seconds{{{I}}}": "0x3000"}, at="38h"
    ),
    "TurnpikeBackupFailed": Fires({f"turnpike_backup_failures_total{{{I}}}": "0x10 1x170"}),
    "TurnpikeFewDescriptors": Fires({f"process_open_fds{{{I}}}": "900x180"}),
    "TurnpikeRestarts": Fires({f"process_start_time_seconds{{{I}}}": "1000+100x180"}),
    "TurnpikeLogLost": Fires({f"turnpike_log_lines_lost_total{{{I}}}": "0x20 5x170"}),
    "TurnpikeTracesLost": Fires(
        {f'turnpike_trace_spans_total{{result="unreachable",{I}}}': "3x5 3+20x175"}, ONE, at="40m"
    ),
}
