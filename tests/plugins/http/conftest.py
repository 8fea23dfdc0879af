"""Both event loops for every test of this room: the client runs on either. Certificates."""

import asyncio
import datetime
import ssl
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.plugins.http.raw import FAR

try:
    from uvloop import new_event_loop
except ImportError:  # Windows
    LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"asyncio": asyncio.new_event_loop}
else:
    LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": new_event_loop}

CERTIFICATES = Path(__file__).parents[2] / "upstreams" / "certificates"


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    return LOOPS


@pytest.fixture
def ca_file() -> str:
    """The authority that signed ``tls_server``'s certificate; nobody else knows it."""
    return str(CERTIFICATES / "authority.pem")


@pytest.fixture
def tls_server() -> ssl.SSLContext:
    """A server's side of TLS, with a certificate for 127.0.0.1."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATES / "server.pem")
    return context


@pytest.fixture(scope="session")
def far_certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for the far host that signed itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, FAR)])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(FAR)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("far") / "far.pem"
    path.write_bytes(
        certificate.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return path


@pytest.fixture(scope="session")
def far_authority(far_certificate: Path) -> Path:
    """The same without its key, to be trusted."""
    end = b"-----END CERTIFICATE-----\n"
    path = far_certificate.with_name("authority.pem")
    path.write_bytes(far_certificate.read_bytes().partition(end)[0] + end)
    return path
