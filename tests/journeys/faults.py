"""What can go wrong at a provider, as a table: how it is played, and what the client must be told.

``SAID`` and ``KEY`` stand in everything that a provider says here about itself: neither may reach a
client, but for the words about the request itself.
"""

import contextlib
import datetime
import ipaddress
import json
import socket
import ssl
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.upstreams.scenes import SCENES, Scene, error_body

SAID = "machine acme-internal-7 melted"
KEY = "sk-operators-0123456789abcdef"
SOON_S = 0.3  # how long a provider may be silent where its silence is the fault
Mode = Literal["whole", "stream"]
BOTH: tuple[Mode, ...] = ("whole", "stream")


@dataclass(frozen=True)
class Fault:
    """One fault. ``where`` is the address that it happens at: ``played``, or one that is itself the
    fault. ``status``, ``code`` and ``retry_after`` are what the client gets when nobody else can
    serve it; ``retries`` whether another provider is asked at all; ``kind`` what the attempt is
    called in the explanation. ``impatient``: the silence is the fault.
    """

    name: str
    scene: Scene = SCENES["normal"]
    where: str = "played"
    status: int = 502
    code: str | None = "upstream_unavailable"
    kind: str = "upstream"
    retry_after: int | None = None
    retries: bool = True
    impatient: bool = False
    modes: tuple[Mode, ...] = BOTH

    @property
    def asks(self) -> bool:
        """Whether the provider gets to see a request."""
        return self.where == "played"


def _says(scene: str, words: str = SAID) -> Scene:
    """A refusal of the catalog in words of our own."""
    code = {"no_quota": "insufficient_quota", "too_long": "context_length_exceeded"}.get(scene)
    return replace(SCENES[scene], body=error_body(f"{words}, with the key {KEY}", code))


def _unreachable(where: str) -> Fault:
    return Fault(where, where=where, kind="connect")


def _limited(name: str, seconds: int, *headers: tuple[str, str]) -> Fault:
    scene = replace(_says("rate_limited"), headers=headers)
    code = "rate_limit_exceeded"
    return Fault(name, scene, status=429, code=code, kind="rate_limited", retry_after=seconds)


def _late(name: str, scene: Scene, modes: tuple[Mode, ...] = BOTH) -> Fault:
    return Fault(
        name,
        scene,
        status=504,
        code="upstream_timeout",
        kind="timeout",
        impatient=True,
        modes=modes,
    )


def _callers(scene: str, code: str | None, words: str) -> Fault:
    return Fault(
        scene, _says(scene, words), status=400, code=code, kind="bad_request", retries=False
    )


def _refused_key(scene: str, kind: str = "auth") -> Fault:
    return Fault(scene, _says(scene), kind=kind)


_TIMEOUT = {"status": 504, "code": "upstream_timeout", "kind": "timeout"}
_BUSY = {"status": 503, "code": "overloaded", "kind": "overloaded"}
_DATE = ("Date", "Wed, 21 Oct 2026 07:28:00 GMT")
_TEXT_EVENTS = "text/event-stream"
_ERROR = json.dumps({"error": {"message": f"{SAID} {KEY}", "code": "server_error"}}).encode()
UNREACHABLE = ("refused", "no_such_host", "expired", "wrong_host", "stranger", "tls_1_1", "no_tls")

BEFORE_THE_FIRST_BYTE = (
    *(_unreachable(where) for where in UNREACHABLE),
    _late("slow_headers", Scene(name="slow_headers", wait_s=60.0)),
    _late("head_only", Scene(name="head_only", hang_at="head")),
    _late("half_a_body", Scene(name="half_a_body", hang_after=3), ("whole",)),
    _late("dripping_body", Scene(name="dripping_body", drip_s=0.05), ("whole",)),
    Fault("reset_at_once", Scene(name="reset_at_once", reset_after=0)),
    Fault("reset_midway", Scene(name="reset_midway", reset_after=100), modes=("whole",)),
    Fault("closed_at_once", Scene(name="closed_at_once", close_after=0), kind="protocol"),
    Fault("closed_midway", Scene(name="cut", close_after=90), kind="protocol", modes=("whole",)),
    Fault("half_a_json", replace(SCENES["garbage"], name="half_a_json"), kind="protocol"),
    Fault("no_json", Scene(name="no_json", body=f"{SAID} {KEY}".encode()), kind="protocol"),
    Fault("binary", Scene(name="binary", body=b"\x00\xff\xfe" * 50), kind="protocol"),
    Fault("empty", SCENES["empty"], kind="protocol"),
    Fault("no_choices", Scene(name="no_choices", body=b'{"choices": []}'), kind="protocol"),
    Fault(
        "html",
        Scene(name="html", body=f"<html>{SAID} {KEY}</html>".encode(), content_type="text/html"),
        kind="protocol",
    ),
    Fault(
        "comments_only",
        Scene(name="comments_only", body=b": PROCESSING\n\n" * 9, content_type=_TEXT_EVENTS),
        kind="protocol",
    ),
    Fault("error_in_200", Scene(name="error_in_200", body=_ERROR, content_type="application/json")),
    Fault("error_first", SCENES["error_first"]),
    Fault("gzip", SCENES["gzip"], kind="protocol"),
    Fault(
        "gzip_bomb",
        Scene(name="gzip_bomb", gzip=True, line_bytes=20_000_000),
        kind="protocol",
        modes=("whole",),
    ),
    Fault("redirect", replace(SCENES["redirect"], body=SAID.encode())),
    Fault(
        "redirect_307",
        Scene(name="redirect_307", status=307, body=b"", headers=(("Location", "/elsewhere"),)),
    ),
    _limited("limited_seconds", 7, ("Retry-After", "7")),
    _limited("limited_date", 30, _DATE, ("Retry-After", "Wed, 21 Oct 2026 07:28:30 GMT")),
    _limited("limited_absurd", 60, ("Retry-After", "9" * 40)),
    _limited("limited_for_ever", 60, ("Retry-After", "inf")),
    _limited("limited_negative", 1, ("Retry-After", "-5")),
    _limited("limited_nan", 1, ("Retry-After", "nan")),
    _limited("limited_in_words", 1, ("Retry-After", "soon")),
    _limited("limited_silently", 1),
    *(_refused_key(scene) for scene in ("unauthorised", "forbidden")),
    *(_refused_key(scene, "no_credit") for scene in ("no_credit", "no_quota")),
    Fault("not_found", _says("not_found"), kind="not_found"),
    Fault("server_error", _says("server_error")),
    Fault("bad_gateway", replace(SCENES["bad_gateway"], body=f"<html>{SAID}".encode())),
    Fault("unavailable", _says("unavailable"), retry_after=3, **_BUSY),  # type: ignore[arg-type]
    Fault("overloaded", _says("overloaded"), retry_after=1, **_BUSY),  # type: ignore[arg-type]
    Fault("gateway_timeout", _says("gateway_timeout"), **_TIMEOUT),  # type: ignore[arg-type]
    Fault("request_timeout", _says("request_timeout"), **_TIMEOUT),  # type: ignore[arg-type]
    _callers("bad_request", None, "temperature is too hot"),
    _callers("unprocessable", None, "messages: field required"),
    _callers("too_large", None, "body is too large"),
    _callers("too_long", "context_length_exceeded", "maximum context length is 8 tokens"),
)


@dataclass(frozen=True)
class Break:
    """A stream that breaks off after its first byte. ``kind`` is the attempt's; ``reported`` says
    that the provider had reported its usage by then, which is what is charged; ``wordless`` that
    it had said nothing but whose turn it is."""

    name: str
    scene: Scene
    kind: str = "upstream"
    code: str = "upstream_unavailable"
    reported: bool = False
    wordless: bool = False
    impatient: bool = False


BREAKS = (
    Break("reset", Scene(name="reset", words=20, reset_after=900)),
    Break("closed", Scene(name="closed", words=20, close_after=900)),
    Break("garbage", Scene(name="spoiled", words=20, garbage_after=900), "protocol"),
    Break("half_line", SCENES["half_line"], "protocol"),
    Break("huge_line", SCENES["huge_line"], "protocol", wordless=True),
    Break("no_finish", SCENES["no_finish"], "protocol", reported=True),
    Break("error_later", SCENES["error_later"]),
    Break("silent", SCENES["hang"], "timeout", "upstream_timeout", impatient=True),
    Break(
        "slow_from_the_start",
        Scene(name="slow_from_the_start", gap_s=30.0),
        "timeout",
        "upstream_timeout",
        wordless=True,
        impatient=True,
    ),
    Break(
        "steady_drip",
        Scene(name="steady_drip", words=10_000, gap_s=0.05),
        "timeout",
        "upstream_timeout",
        impatient=True,
    ),
    Break("usage_told", Scene(name="usage_told", usage="first", reset_after=1200), reported=True),
    Break("usage_so_far", Scene(name="usage_so_far", usage="every", error_after=4), reported=True),
)


def authority(folder: Path) -> dict[str, ssl.SSLContext]:
    """A certificate authority of one's own, in ``folder/ca.pem``, and servers' sides of TLS: good,
    expired, for another host, of a stranger, and one that speaks nothing newer than TLS 1.1."""
    ours, strangers = _Authority("ours"), _Authority("strangers")
    (folder / "ca.pem").write_bytes(ours.pem)
    here = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    contexts = {
        "good": ours.server(folder, here),
        "expired": ours.server(folder, here, days=-1),
        "wrong_host": ours.server(folder, x509.DNSName("other.example")),
        "stranger": strangers.server(folder, here),
        "tls_1_1": ours.server(folder, here),
    }
    old = contexts["tls_1_1"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        old.set_ciphers("ALL:@SECLEVEL=0")
        old.minimum_version = ssl.TLSVersion.TLSv1
        old.maximum_version = ssl.TLSVersion.TLSv1_1
    return contexts


class _Authority:
    """Signs certificates."""

    def __init__(self, name: str) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self._count = 0
        signed = self._builder(self._name, 30).public_key(self._key.public_key())
        constraints = x509.BasicConstraints(ca=True, path_length=0)
        certificate = signed.add_extension(constraints, critical=True).sign(
            self._key, hashes.SHA256()
        )
        self.pem = certificate.public_bytes(serialization.Encoding.PEM)

    def server(self, folder: Path, host: x509.GeneralName, days: int = 30) -> ssl.SSLContext:
        """For a host, until so many days from now."""
        key = ec.generate_private_key(ec.SECP256R1())
        self._count += 1
        common = f"server {self._count}"
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])
        certificate = (
            self._builder(name, days)
            .public_key(key.public_key())
            .add_extension(x509.SubjectAlternativeName([host]), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        path = folder / f"{id(self)}-{self._count}.pem"
        path.write_bytes(
            certificate.public_bytes(serialization.Encoding.PEM)
            + key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(path)
        return context

    def _builder(self, subject: x509.Name, days: int) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=10))
            .not_valid_after(now + datetime.timedelta(days=days))
        )


@contextlib.contextmanager
def refusing_port() -> Iterator[int]:
    """A port that refuses: bound, so that nobody else gets it, and not listening."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]
