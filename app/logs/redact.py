"""The second net under the log: what looks like a secret is taken out of every line.

The first net is that nothing secret is handed to the log, which
``tests/journeys/test_no_secret_leaks.py`` holds the appliance to. Here only the shape counts, so a
secret of no known shape passes. What ``plugins.http.failures`` has starred out stays as it is.
"""

import re

GONE = "[redacted]"

_LONG = r"[A-Za-z0-9._~+/=-]"
_NAMED = (
    r"(?:x-)?(?:goog-)?api[-_ ]?key|client_secret|access_token|refresh_token|secret_key|password"
)
_SHAPES = re.compile(
    rf"""
      (?P<ours>\btp_[0-9A-Za-z]{{10}})_[0-9A-Za-z]{{8,}}
    | (?P<header>\b(?:proxy-)?authorization["']?\s*[:=]\s*["']?)
      (?!\s*["']?(?:[A-Za-z]+\s+)?\*{{3}}(?:\s|$))(?:[A-Za-z]+\s+)?[^\s"',;]+
    | (?P<scheme>\b(?:bearer|basic)\s+){_LONG}{{16,}}
    | (?P<cookie>\b(?:set-)?cookie["']?\s*[:=]\s*["']?)[^\r\n"']+
    | (?P<named>\b(?:{_NAMED})["']?\s*[:=]\s*["']?)
      (?!env:|file:)(?=[^\s"',;]*\d)[^\s"',;&]{{8,}}
    | (?P<url>\bhttps?://[^\s?"'<>]+\?)[^\s"'<>]+
    | (?P<userinfo>\b[a-z][a-z0-9+.-]{{0,15}}://)[^\s/@"']+@
    | \b(?:sk|pk|rk|gsk|xai|csk|nvapi|pplx|whsec|r8|fw|tgp_v1)[-_]{_LONG}{{16,}}
    | \b(?:hf|ghp|gho)_[A-Za-z0-9]{{20,}}
    | \b(?:AKIA|ASIA)[0-9A-Z]{{16}}\b
    | \bAIza[0-9A-Za-z_-]{{30,}}
    | \beyJ[A-Za-z0-9_-]{{10,}}\.[A-Za-z0-9_-]{{10,}}(?:\.[A-Za-z0-9_-]*)?
    | -----BEGIN\ [A-Z ]*PRIVATE\ KEY-----.*?(?:-----END\ [A-Z ]*PRIVATE\ KEY-----|\Z)
    """,
    re.IGNORECASE | re.VERBOSE | re.DOTALL,
)


def redact(text: str) -> str:
    """The text without what has the shape of a secret; of a key of ours its public part stays,
    and of a URL all but its query and its password."""
    return _SHAPES.sub(_without, text)


def _without(found: re.Match[str]) -> str:
    name = found.lastgroup
    if name is None:
        return GONE
    kept = found[name]
    if name == "ours":
        return f"{kept}_{GONE}"
    return f"{kept}{GONE}@" if name == "userinfo" else f"{kept}{GONE}"
