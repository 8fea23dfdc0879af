"""What goes wrong in a soak: every fault of the matrix that a provider recovers from by itself.

Each is told what the provider charges for: nothing before the first byte of a stream and for a
whole answer that did not arrive whole; for a stream that broke off, what it said or what it told
afterwards. So there is one true amount for each, whoever comes first.
"""

from tests.upstreams.scenes import SCENES, Scene

# For ever, to somebody who waits a few seconds.
STALLS_S = 1000.0
BEFORE_THE_FIRST_BYTE = {
    name: SCENES[name]
    for name in (
        *("reset_at_once", "garbage", "empty", "html", "error_in_200", "error_first", "redirect"),
        *("gzip", "server_error", "bad_gateway", "unavailable", "gateway_timeout", "overloaded"),
        "request_timeout",
    )
} | {
    "closed_at_once": Scene(name="closed_at_once", close_after=0),
    "slow_headers": Scene(name="slow_headers", wait_s=STALLS_S),
    "head_only": Scene(name="head_only", hang_at="head"),
    "limited": Scene(name="limited", status=429, body=b"{}", headers=(("Retry-After", "1"),)),
    "limited_silently": Scene(name="limited_silently", status=429, body=b"{}"),
}
# Of whole answers: they are as if nothing had come.
MIDWAY = {
    "reset_midway": Scene(name="reset_midway", reset_after=100),
    "closed_midway": Scene(name="closed_midway", close_after=90),
    "half_a_body": Scene(name="half_a_body", hang_after=3),
}
# Of streams, where the provider said at once what it charges.
BREAKS = {
    "cut": Scene(name="cut", usage="first", words=20, close_after=900),
    "spoiled": Scene(name="spoiled", usage="first", words=20, garbage_after=900),
    "error_later": Scene(name="error_later", usage="first", error_after=3),
    "silent": Scene(name="silent", usage="first", words=10, hang_after=3),
}
# Of streams, where the provider says afterwards what it charges.
BREAKS_TOLD_LATER = BREAKS | {
    "reset": Scene(name="reset", words=20, gap_s=0.01, reset_after=900),
    "half_line": SCENES["half_line"],
    "huge_line": SCENES["huge_line"],
    "no_finish": SCENES["no_finish"],
    "for_ever": Scene(name="for_ever", forever=True, finish=False, gap_s=0.005),
}
# Answers that are good, with a count that cannot be true.
MISCOUNTED = {
    name: SCENES[name]
    for name in ("usage_negative", "usage_absurd", "usage_text", "usage_null", "usage_never")
}


def faults_of(*, stream: bool, told_later: bool) -> dict[str, Scene]:
    """All that can befall such a call at a provider, by name."""
    if not stream:
        return BEFORE_THE_FIRST_BYTE | MIDWAY | (MISCOUNTED if told_later else {})
    if told_later:
        return BEFORE_THE_FIRST_BYTE | BREAKS_TOLD_LATER | MISCOUNTED
    return BEFORE_THE_FIRST_BYTE | BREAKS
