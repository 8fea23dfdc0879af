"""One reading of a URL, and which addresses are public."""

import ipaddress
import string
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugins.http.addresses import is_public, read_address
from plugins.http.urls import BadUrl, read_url


@pytest.mark.parametrize(
    ("url", "scheme", "host", "port", "target"),
    [
        ("http://a.example", "http", "a.example", 80, "/"),
        ("HTTPS://A.Example/", "https", "a.example", 443, "/"),
        ("https://a.example:8443/p?q#f", "https", "a.example", 8443, "/p?q"),
        ("http://a.example?q=1", "http", "a.example", 80, "/?q=1"),
        ("http://a_b.example/%2F%zz", "http", "a_b.example", 80, "/%2F%zz"),
        ('http://a.example/é"<>', "http", "a.example", 80, "/%C3%A9%22%3C%3E"),
        ("http://bücher.example/", "http", "xn--bcher-kva.example", 80, "/"),
        ("http://a.example./", "http", "a.example.", 80, "/"),
        ("http://8.8.8.8./", "http", "8.8.8.8", 80, "/"),
        ("http://[2620:FE::9]:81/", "http", "2620:fe::9", 81, "/"),
        ("http://①.1.1.1/", "http", "1.1.1.1", 80, "/"),
        ("http://1.example1/", "http", "1.example1", 80, "/"),
    ],
)
def test_url(url: str, scheme: str, host: str, port: int, target: str) -> None:
    found = read_url(url)
    assert (found.origin, found.target) == ((scheme, host, port), target)


def test_url_that_is_too_long() -> None:
    with pytest.raises(BadUrl):
        read_url(f"http://a.example/{'x' * 10_000}")


parts = st.sampled_from(
    [
        *(
            "http",
            "https",
            "file",
            ":",
            "/",
            "//",
            "?",
            "#",
            "@",
            "\\",
            "[",
            "]",
            "%",
            ".",
            "..",
            " ",
        ),
        *("127.0.0.1", "0x7f", "1", "a.example", "::1", "80", "99999", "é", "①", "。", "\t", "\n"),
    ]
)
urls = st.one_of(
    st.text(max_size=40),
    st.lists(parts, max_size=12).map("".join),
    st.lists(parts, max_size=10).map(lambda found: "http://" + "".join(found)),
)


@given(urls)
def test_what_is_read_is_what_any_other_parser_reads(url: str) -> None:
    """Nothing else is thrown, and nothing gets through that Python's own parser reads otherwise."""
    try:
        found = read_url(url)
    except BadUrl:
        return
    theirs = urlsplit(url)
    assert theirs.scheme == found.origin.scheme
    assert (theirs.port or found.origin.port) == found.origin.port
    assert theirs.username is None
    host = theirs.hostname or ""
    if host.isascii() and ":" not in host:
        assert found.origin.host.rstrip(".") == host.rstrip(".")
    line = f"GET {found.target} HTTP/1.1"
    assert line.isascii()
    assert line.isprintable()
    assert line.count(" ") == 2
    last = found.origin.host.rstrip(".").rpartition(".")[2]
    if last.isdigit() or (last.startswith("0x") and set(last[2:]) <= set(string.hexdigits)):
        assert found.is_address


@pytest.mark.parametrize(
    "text",
    [
        *("8.8.8.8", "1.1.1.1", "93.184.216.34", "100.128.0.1", "172.32.0.1", "192.0.1.1"),
        *("2606:4700::1111", "2a00:1450::1", "2001:4860:4860::8888", "::ffff:8.8.8.8"),
    ],
)
def test_public_addresses(text: str) -> None:
    assert is_public(read_address(text))


@pytest.mark.parametrize(
    "text",
    [
        *("0.0.0.0", "0.1.2.3", "10.0.0.1", "100.64.0.1", "127.0.0.1", "127.255.255.255"),
        *("169.254.169.254", "172.16.0.1", "192.0.0.1", "192.0.2.1", "192.88.99.1", "192.168.1.1"),
        *("198.18.0.1", "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.1.1.1", "240.0.0.1"),
        *("255.255.255.255", "::", "::1", "::ffff:10.0.0.1", "::8.8.8.8", "64:ff9b::808:808"),
        *("64:ff9b:1::1", "100::1", "2001::1", "2001:db8::1", "2002:808:808::1", "3fff::1"),
        *("4000::1", "fc00::1", "fd12::1", "fe80::1", "fe80::1%eth0", "fec0::1", "ff0e::1"),
    ],
)
def test_addresses_that_are_not_public(text: str) -> None:
    assert not is_public(read_address(text))


@given(st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)))
def test_no_address_that_python_calls_private_is_public(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    read = read_address(str(address))
    kinds = (read.is_private, read.is_loopback, read.is_link_local, read.is_multicast)
    assert not is_public(read) or not any((*kinds, read.is_reserved, read.is_unspecified))
