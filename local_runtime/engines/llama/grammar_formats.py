"""JSON Schema's string formats as patterns: for each a part of its texts that is always valid."""

_LABEL = "[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?"
_DATE = r"[12]\d{3}-(0[1-9]|1[0-2])-(0[1-9]|1\d|2[0-8])"
_TIME = r"([01]\d|2[0-3]):[0-5]\d:[0-5]\d(\.\d{1,6})?(Z|[+-]([01]\d|2[0-3]):[0-5]\d)"
_OCTET = r"(25[0-5]|2[0-4]\d|1\d{2}|[1-9]?\d)"
_HEX = "[0-9a-f]"
_URI = rf"https?://{_LABEL}(\.{_LABEL}){{1,3}}(/[A-Za-z0-9_.-]{{1,24}}){{0,4}}"

FORMATS = {
    # RFC 3339; days to 28, which every month has.
    "date": _DATE,
    "time": _TIME,
    "date-time": f"{_DATE}T{_TIME}",
    # ISO 8601 as RFC 3339's appendix A has it.
    "duration": (
        r"P(\d{1,4}W|\d{1,4}D(T\d{1,2}H(\d{1,2}M(\d{1,2}S)?)?)?"
        r"|T(\d{1,4}H(\d{1,2}M(\d{1,2}S)?)?|\d{1,4}M(\d{1,2}S)?|\d{1,4}S))"
    ),
    "uuid": f"{_HEX}{{8}}-{_HEX}{{4}}-[1-5]{_HEX}{{3}}-[89ab]{_HEX}{{3}}-{_HEX}{{12}}",
    "ipv4": rf"{_OCTET}(\.{_OCTET}){{3}}",
    "ipv6": f"{_HEX}{{1,4}}(:{_HEX}{{1,4}}){{7}}",
    "hostname": rf"{_LABEL}(\.{_LABEL}){{0,5}}",
    "email": rf"[a-z0-9]{{1,32}}(\.[a-z0-9]{{1,32}}){{0,1}}@{_LABEL}(\.{_LABEL}){{1,3}}",
    "uri": _URI,
    "uri-reference": _URI,
    "json-pointer": "(/[A-Za-z0-9_-]{1,24}){0,8}",
}
# OpenAPI's formats of numbers, as bounds.
NUMBER_FORMATS: dict[str, dict[str, int]] = {
    "int32": {"minimum": -(2**31), "maximum": 2**31 - 1},
    "int64": {},
    "float": {},
    "double": {},
}
