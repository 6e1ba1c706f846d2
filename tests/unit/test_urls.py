"""What a URL names, which addresses are public, and what the URL_FETCH setting admits."""

from __future__ import annotations

import socket
import subprocess
import sys
from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import UrlRefused
from shared.url_policy import UrlPolicy, is_host_name, is_public
from shared.url_syntax import parse_redirect, parse_url

# The text of a URL


@pytest.mark.parametrize(
    ("url", "host", "canonical"),
    [
        ("http://example.com", "example.com", "http://example.com/"),
        ("HTTPS://Example.COM:443/a/B?q=1#part", "example.com", "https://example.com:443/a/B?q=1"),
        ("http://example.com./x", "example.com", "http://example.com/x"),
        ("http://example.com:/x", "example.com", "http://example.com/x"),
        ("http://my_bucket.s3.example/x", "my_bucket.s3.example", "http://my_bucket.s3.example/x"),
        ("http://8.8.8.8:8080/x", "8.8.8.8", "http://8.8.8.8:8080/x"),
        ("http://[2606:4700:0::1111]/x", "2606:4700::1111", "http://[2606:4700::1111]/x"),
        ("http://bücher.example/ä", "xn--bcher-kva.example", "http://xn--bcher-kva.example/ä"),
        ("http://example.com?q=http://a@b/", "example.com", "http://example.com/?q=http://a@b/"),
        ("http://example.com//evil.example/", "example.com", "http://example.com//evil.example/"),
    ],
)
def test_a_url_names_one_place(url: str, host: str, canonical: str) -> None:
    target = parse_url(url)
    assert (target.host, target.url) == (host, canonical)


@pytest.mark.parametrize(
    "host",
    [
        "2130706433",
        "017700000001",
        "0x7f000001",
        "0X7F.1",
        "0x7f.0.0.1",
        "0177.0.0.1",
        "127.1",
        "127.0.1",
        "127.0.0.01",
        "127.0.0.1..",
        "127.0.0.0x1",
        "127.0.0.256",
        "1.2.3.4.5",
        "0",
        "0x",
        "4294967296",
        "example.0x7f",
        "１２７.０.０.１",
        "127。0。0。1",
        "①②⑦.⓪.⓪.①",
        "ｅxample.com",
        "%31%32%37.0.0.1",
        "127.0.0.1%00.example.com",
        "example.com%2f@127.0.0.1",
        "localhost%",
        "exa mple.com",
        " example.com",
        "example.com\t",
        "exam\nple.com",
        "example.com\r\nHost: other",
        "example.com\x00",
        "example.com\x7f",
        "example\u200b.com",
        "example\u00ad.com",
        "example\ud800.com",
        "\u202eexample.com",
        "\\127.0.0.1",
        "example.com\\@127.0.0.1",
        "example.com\\.127.0.0.1",
        "",
        ".",
        "..",
        ".example.com",
        "example..com",
        "-example.com",
        "*.example.com",
        "example.com:http",
        "example.com:80:80",
        "example.com:-1",
        "example.com:0",
        "example.com:65536",
        "example.com:٨٠",
        "[::1",
        "::1",
        "[::1]x",
        "x[::1]",
        "[127.0.0.1]",
        "[v1.x]",
        "[fe80::1%25eth0]",
        "[fe80::1%eth0]",
        "[::ffff:0x7f.1]",
        "a" * 64 + ".example",
        "a." * 127 + "example",
        "me@example.com",
        "me:secret@example.com",
        "@example.com",
        "example.com@127.0.0.1",
    ],
)
def test_a_hostile_host_is_refused_outright(host: str) -> None:
    with pytest.raises(UrlRefused):
        parse_url(f"http://{host}/x.jpg")


@pytest.mark.parametrize(
    "url",
    [
        "",
        "example.com/x.jpg",
        "//example.com/x.jpg",
        "/x.jpg",
        "http:",
        "http:/example.com/",
        "http:example.com",
        "http:///example.com/",
        "file:///etc/passwd",
        "ftp://example.com/x",
        "gopher://example.com/_x",
        "data:image/png;base64,AAAA",
        "javascript:alert(1)",
        "jar:http://example.com/x",
        "hthttp://tp://example.com/",
        "http://example.com/a b",
        "http://example.com/a\nb",
        "http://example.com/\\..\\x",
        "http://example.com/" + "a" * 8192,
    ],
)
def test_a_hostile_url_is_refused_outright(url: str) -> None:
    with pytest.raises(UrlRefused):
        parse_url(url)


def test_a_refusal_says_what_to_do_and_repeats_no_secret() -> None:
    with pytest.raises(UrlRefused, match="without them") as caught:
        parse_url("http://me:secret@example.com/")
    assert "secret" not in caught.value.message


@given(st.text(alphabet="0123456789abcdefxX.", max_size=20))
def test_what_inet_aton_takes_is_refused_or_a_dotted_quad(text: str) -> None:
    try:
        packed = socket.inet_aton(text)
    except OSError:
        return
    assert not is_host_name(text.lower())
    try:
        assert parse_url(f"http://{text}/").host == socket.inet_ntoa(packed)
    except UrlRefused:
        return


@given(st.text(alphabet=st.sampled_from("ab1.:@/?#[]%\\ \t\näＡ。-_") | st.characters(), max_size=30))
def test_the_client_reads_the_same_host_from_an_accepted_url(text: str) -> None:
    import requests
    from urllib3.util import parse_url as as_urllib3

    try:
        target = parse_url(f"http://{text}")
    except UrlRefused:
        return
    prepared = requests.Request("GET", target.url).prepare()
    assert prepared.url is not None
    assert str(as_urllib3(prepared.url).host).strip("[]") == target.host


@pytest.mark.parametrize(
    ("location", "expected"),
    [
        ("other.jpg", "https://example.com/a/other.jpg"),
        ("/top.jpg", "https://example.com/top.jpg"),
        ("?size=2", "https://example.com/a/b.jpg?size=2"),
        ("//cdn.example/x", "https://cdn.example/x"),
        ("https://cdn.example/x", "https://cdn.example/x"),
    ],
)
def test_a_redirect_may_be_relative(location: str, expected: str) -> None:
    assert parse_redirect(parse_url("https://example.com/a/b.jpg"), location).url == expected


def test_a_redirect_from_http_to_https_is_followed() -> None:
    assert parse_redirect(parse_url("http://example.com/a"), "https://example.com/a").scheme == "https"


def test_a_redirect_from_https_to_http_is_refused() -> None:
    with pytest.raises(UrlRefused, match="from https to http"):
        parse_redirect(parse_url("https://example.com/a"), "http://example.com/a")


# Public addresses

NOT_PUBLIC = [
    "0.0.0.0",
    "0.1.2.3",
    "10.0.0.1",
    "100.64.0.1",
    "100.100.100.200",
    "127.0.0.1",
    "127.255.255.254",
    "168.63.129.16",
    "169.254.169.254",
    "169.254.170.2",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.192",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.1.1",
    "198.18.0.1",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "239.255.255.250",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::127.0.0.1",
    "::ffff:127.0.0.1",
    "::ffff:8.8.8.8",
    "64:ff9b::8.8.8.8",
    "64:ff9b::169.254.169.254",
    "64:ff9b:1::1",
    "100::1",
    "2001::1",
    "2001:0:4136:e378:8000:63bf:3fff:fdd2",
    "2001:db8::1",
    "2002:7f00:1::1",
    "2002:808:808::1",
    "2606:4700::5efe:127.0.0.1",
    "2606:4700::200:5efe:127.0.0.1",
    "3ffe::1",
    "3fff::1",
    "fc00::1",
    "fd00:ec2::254",
    "fd20:ce::254",
    "fe80::1",
    "fe80::1%1",
    "2606:4700::1%1",
    "fec0::1",
    "ff02::1",
]


@pytest.mark.parametrize("address", NOT_PUBLIC)
def test_an_address_that_leads_inside_is_not_public(address: str) -> None:
    assert not is_public(ip_address(address))


@pytest.mark.parametrize(
    "address",
    [
        "1.1.1.1",
        "8.8.8.8",
        "172.15.255.255",
        "172.32.0.0",
        "100.63.255.255",
        "168.63.129.15",
        "223.255.255.255",
        "2606:4700::1111",
        "2001:4860:4860::8888",
        "2a00:1450::1",
    ],
)
def test_an_address_of_the_internet_is_public(address: str) -> None:
    assert is_public(ip_address(address))


@given(st.ip_addresses(v=4))
def test_a_public_address_is_global_to_the_standard_library_too(address: IPv4Address) -> None:
    assert not is_public(address) or (address.is_global and not address.is_multicast)


@given(st.ip_addresses(v=6))
def test_a_public_ipv6_address_is_global_and_embeds_no_other(address: IPv6Address) -> None:
    embedded = address.ipv4_mapped or address.sixtofour or address.teredo
    assert not is_public(address) or (address.is_global and not address.is_multicast and not embedded)


@given(st.ip_addresses(v=4), st.sampled_from([0, 0xFFFF << 32, 0x64FF9B << 96, 0x2606_4700 << 96 | 0x5EFE << 32]))
def test_no_ipv4_address_passes_inside_an_ipv6_one(address: IPv4Address, prefix: int) -> None:
    assert not is_public(IPv6Address(prefix | int(address)))


# The setting


def test_off_admits_nothing() -> None:
    assert not UrlPolicy.parse("off").admits("example.com", [ip_address("8.8.8.8")])


def test_public_admits_a_host_whose_every_address_is_public() -> None:
    policy = UrlPolicy.parse(" Public ")
    assert policy.admits("example.com", [ip_address("8.8.8.8"), ip_address("2606:4700::1111")])
    assert not policy.admits("example.com", [ip_address("8.8.8.8"), ip_address("10.0.0.1")])


@pytest.mark.parametrize("mode", ["public", "example.com", "0.0.0.0/0"])
def test_a_host_without_an_address_is_never_admitted(mode: str) -> None:
    assert not UrlPolicy.parse(mode).admits("example.com", [])


@pytest.mark.parametrize(
    ("host", "address", "admitted"),
    [
        ("images.example.com", "10.9.9.9", True),
        ("other.example.com", "8.8.8.8", False),
        ("ximages.example.com", "8.8.8.8", False),
        ("a.example.org", "127.0.0.1", True),
        ("a.b.example.org", "127.0.0.1", True),
        ("example.org", "8.8.8.8", False),
        ("evilexample.org", "8.8.8.8", False),
        ("10.1.2.3", "10.1.2.3", True),
        ("somewhere.else", "10.1.2.3", True),
        ("somewhere.else", "10.2.0.0", False),
        ("127.0.0.1", "127.0.0.1", True),
        ("127.0.0.2", "127.0.0.2", False),
        ("::ffff:127.0.0.1", "::ffff:127.0.0.1", False),
        ("fd00::5", "fd00::5", True),
    ],
)
def test_a_list_admits_what_it_names(host: str, address: str, admitted: bool) -> None:
    policy = UrlPolicy.parse("images.example.com, *.Example.org,10.1.0.0/16,127.0.0.1,fd00::/8")
    assert policy.admits(host, [ip_address(address)]) is admitted


def test_a_range_must_hold_every_address() -> None:
    policy = UrlPolicy.parse("10.1.0.0/16")
    assert not policy.admits("x.example", [ip_address("10.1.0.1"), ip_address("8.8.8.8")])


def test_a_list_of_names_only_need_not_look_up_others() -> None:
    assert not UrlPolicy.parse("images.example.com").may_look_up("other.example.com")
    assert UrlPolicy.parse("images.example.com,10.0.0.0/8").may_look_up("other.example.com")


@pytest.mark.parametrize(
    "entry",
    [
        "",
        "*",
        "*.",
        "a b",
        "http://a.example",
        "a.example:80",
        "a.example/x",
        "bücher.example",
        "127.1",
        "0x7f.0.0.1",
        "10.0.0.0/33",
        "10.0.0/8",
        "[::1]",
        "fe80::1%eth0",
        "*.10.0.0.1",
        "-a.example",
        "a..example",
        "me@a.example",
    ],
)
def test_a_bad_entry_is_named(entry: str) -> None:
    with pytest.raises(ValueError, match="is none of") as caught:
        UrlPolicy.parse(f"good.example,{entry}")
    assert repr(entry) in str(caught.value)


def test_a_range_with_host_bits_is_told_the_right_one() -> None:
    with pytest.raises(ValueError, match=r"'10\.1\.2\.3/16' has host bits set, did you mean '10\.1\.0\.0/16'"):
        UrlPolicy.parse("10.1.2.3/16")


@pytest.mark.parametrize("text", ["public,10.0.0.0/8", "a.example,off"])
def test_off_and_public_stand_alone(text: str) -> None:
    with pytest.raises(ValueError, match="must stand alone"):
        UrlPolicy.parse(text)


def test_the_policy_is_read_without_requests() -> None:
    program = (
        "import sys, shared.url_policy, shared.url_syntax; print({'requests', 'urllib3', 'idna'} & set(sys.modules))"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "set()"
