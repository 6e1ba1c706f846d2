"""Pictures fetched from real servers on loopback that redirect, lie, drip, flood and break off."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import threading
import tracemalloc
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from time import monotonic, process_time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shared import __version__, url_connections
from shared.errors import BodyTooLarge, Failure, UrlFailed, UrlRefused, UrlTimeout, UrlUnresolved
from shared.url_policy import UrlPolicy
from shared.urls import fetch
from tests.hostile_server import PICTURE, HostileServer, gzip_bomb, redirect, reply, self_signed

LOOPBACK = UrlPolicy.parse("127.0.0.1")
PUBLIC = UrlPolicy.parse("public")
LIMIT_BYTES = 100_000
LIMIT_S = 0.5
SLACK_S = 0.5

needs_openssl = pytest.mark.skipif(not shutil.which("openssl"), reason="NEEDS the openssl command to make certificates")


@pytest.fixture
def server() -> Iterator[HostileServer]:
    with HostileServer() as running:
        yield running


def get(url: str, policy: UrlPolicy = LOOPBACK, timeout_s: float = 5) -> bytes:
    return fetch(url, policy, max_bytes=LIMIT_BYTES, timeout_s=timeout_s)


def test_a_picture_is_fetched(server: HostileServer) -> None:
    assert get(server.url("/picture")) == PICTURE


def test_the_request_names_us_and_asks_for_the_plain_body(server: HostileServer) -> None:
    get(server.url("/picture?size=large&name=%C3%A4"))
    lines = server.requests[0].split("\r\n")
    assert lines[0] == "GET /picture?size=large&name=%C3%A4 HTTP/1.1"
    assert {f"User-Agent: thinlens/{__version__}", "Accept-Encoding: identity"} <= set(lines)
    assert f"Host: 127.0.0.1:{server.port}" in lines


def test_proxies_and_netrc_of_the_environment_are_ignored(
    server: HostileServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password secret")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert get(server.url("/picture")) == PICTURE
    assert "Authorization" not in server.requests[0]


def test_a_chunked_body_is_put_together(server: HostileServer) -> None:
    server.replies["/x"] = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
    assert get(server.url("/x")) == b"abcde"


@pytest.mark.parametrize(("coding", "wbits"), [("gzip", 31), ("deflate", 15)])
def test_a_body_compressed_unasked_is_undone(server: HostileServer, coding: str, wbits: int) -> None:
    packer = zlib.compressobj(wbits=wbits)
    server.replies["/x"] = reply(packer.compress(PICTURE) + packer.flush(), f"Content-Encoding: {coding}")
    assert get(server.url("/x")) == PICTURE


def test_a_body_of_exactly_the_limit_is_taken(server: HostileServer) -> None:
    server.replies["/x"] = reply(bytes(LIMIT_BYTES))
    assert len(get(server.url("/x"))) == LIMIT_BYTES


# Redirects


def test_five_redirects_with_relative_locations_are_followed(server: HostileServer) -> None:
    assert get(server.url("/hops/5")) == PICTURE


@pytest.mark.parametrize("path", ["/hops/6", "/loop"])
def test_a_sixth_redirect_is_not_followed(server: HostileServer, path: str) -> None:
    with pytest.raises(UrlFailed, match="more than 5 times") as caught:
        get(server.url(path))
    assert caught.value.figures == {"limit": 5}
    assert len(server.requests) == 6


@pytest.mark.parametrize(
    "location",
    [
        "http://169.254.169.254/latest/meta-data/",
        "http://[::ffff:169.254.169.254]/",
        "http://[::1]/",
        "http://2130706433/",
        "http://0x7f.1/",
        "http://me:secret@127.0.0.1/",
        "//10.0.0.1/x",
        "file:///etc/passwd",
        "ftp://127.0.0.1/x",
        "data:image/png;base64,AAAA",
        "http://a\\@127.0.0.1/",
        "http://",
        "http:/10.0.0.1/",
        "http:x",
        "http://127.0.0.1:99999/",
    ],
)
def test_a_redirect_to_where_no_url_may_lead_is_refused(server: HostileServer, location: str) -> None:
    server.replies["/x"] = redirect(location)
    with pytest.raises(UrlRefused, match="a redirect of the URL"):
        get(server.url("/x"))


def test_a_listed_host_may_not_redirect_to_an_unlisted_one(
    server: HostileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = UrlPolicy.parse("pictures.example")
    resolves(monkeypatch, {"pictures.example": ["127.0.0.1"]})
    server.replies["/x"] = redirect(server.url("/picture"))
    with pytest.raises(UrlRefused, match="redirect"):
        get(server.url("/x", host="pictures.example"), listed)
    assert len(server.requests) == 1


def test_cookies_do_not_travel_from_hop_to_hop(server: HostileServer) -> None:
    server.replies["/x"] = redirect("/picture", "Set-Cookie: session=secret; Path=/")
    get(server.url("/x"))
    assert "cookie" not in server.requests[1].lower()


# Time


@pytest.mark.parametrize(
    "path",
    [
        "/silence",
        "/drip-headers",
        "/drip-location",
        "/drip-body",
        "/drip-unsized-body",
        "/drip-chunks",
        "/endless-continue",
        "/endless-trailers",
    ],
)
def test_the_total_time_is_kept_whatever_drips(server: HostileServer, path: str) -> None:
    start = monotonic()
    with pytest.raises(UrlTimeout) as caught:
        get(server.url(path), timeout_s=LIMIT_S)
    assert monotonic() - start < LIMIT_S + SLACK_S
    assert caught.value.figures == {"limit": LIMIT_S}


@pytest.mark.parametrize("path", ["/drip-headers", "/drip-body"])
def test_a_server_that_sends_next_to_nothing_is_given_up_on_before_the_total_time(
    server: HostileServer, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(url_connections, "BEGIN_LIMIT_S", LIMIT_S)
    start = monotonic()
    with pytest.raises(UrlTimeout) as caught:
        get(server.url(path), timeout_s=20)
    assert monotonic() - start < LIMIT_S + SLACK_S
    assert caught.value.figures == {"limit": LIMIT_S}


def test_the_total_time_is_shared_by_all_hops(server: HostileServer) -> None:
    server.replies["/x"] = redirect("/drip-body")
    start = monotonic()
    with pytest.raises(UrlTimeout):
        get(server.url("/x"), timeout_s=LIMIT_S)
    assert monotonic() - start < LIMIT_S + SLACK_S


def test_a_server_that_accepts_and_never_shakes_hands_in_tls_times_out(server: HostileServer) -> None:
    start = monotonic()
    with pytest.raises(UrlTimeout):
        get(server.url("/picture").replace("http:", "https:"), timeout_s=LIMIT_S)
    assert monotonic() - start < LIMIT_S + SLACK_S


def test_a_server_that_never_accepts_times_out() -> None:
    # A full backlog: the kernel drops further connection requests, as a firewall does.
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port = listener.getsockname()[1]
        fillers = [socket.socket() for _ in range(4)]
        try:
            for filler in fillers:
                filler.setblocking(False)
                filler.connect_ex(("127.0.0.1", port))
            start = monotonic()
            with pytest.raises(UrlTimeout):
                get(f"http://127.0.0.1:{port}/", timeout_s=LIMIT_S)
            assert monotonic() - start < LIMIT_S + SLACK_S
        finally:
            for filler in fillers:
                filler.close()


def test_a_name_that_takes_too_long_to_look_up_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    done = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: done.wait(5) and [])
    start = monotonic()
    with pytest.raises(UrlUnresolved, match="in time"):
        get("http://slow.example/", PUBLIC, timeout_s=LIMIT_S)
    assert monotonic() - start < LIMIT_S + SLACK_S
    done.set()


# Bytes


@pytest.mark.parametrize("path", ["/endless-body", "/endless-header", "/endless-chunk"])
def test_a_flood_ends_early_and_stays_small(server: HostileServer, path: str) -> None:
    tracemalloc.start()
    start = process_time()
    with pytest.raises((BodyTooLarge, UrlFailed)):
        get(server.url(path))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert process_time() - start < 1
    assert peak < 4_000_000


def test_an_endless_body_is_too_large(server: HostileServer) -> None:
    with pytest.raises(BodyTooLarge) as caught:
        get(server.url("/endless-body"))
    assert caught.value.figures == {"limit": LIMIT_BYTES}


def test_a_length_over_the_limit_is_refused_before_the_body(server: HostileServer) -> None:
    server.replies["/x"] = reply(b"abc", length=LIMIT_BYTES + 1)
    with pytest.raises(BodyTooLarge) as caught:
        get(server.url("/x"))
    assert caught.value.figures == {"limit": LIMIT_BYTES, "found": LIMIT_BYTES + 1}


@pytest.mark.parametrize("framing", ["Content-Length: {length}", "X-None: {length}"])
def test_a_gzip_bomb_goes_off_at_the_limit(server: HostileServer, framing: str) -> None:
    bomb = gzip_bomb(50)
    head = f"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n{framing.format(length=len(bomb))}\r\n\r\n"
    server.replies["/x"] = head.encode() + bomb
    tracemalloc.start()
    with pytest.raises(BodyTooLarge):
        get(server.url("/x"))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4_000_000


@pytest.mark.parametrize("coding", ["gzip, gzip", "br", "zstd", "compress", "a" * 1000])
def test_an_encoding_that_was_not_asked_for_is_a_failure(server: HostileServer, coding: str) -> None:
    server.replies["/x"] = reply(b"abc", f"Content-Encoding: {coding}")
    with pytest.raises(UrlFailed, match="encoding"):
        get(server.url("/x"))


# Broken replies


BROKEN = [
    b"",
    b"\r\n\r\n",
    b"garbage",
    b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort",
    b"HTTP/1.1 200 OK\r\nContent-Length: 3, 4\r\n\r\nabcd",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nnot a number\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\nabc",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\nabc",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1" * 100_000,
    b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc",
    b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 1000 + b"\r\n",
    b"HTTP/9.9 200 OK\r\n\r\n",
    b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 302 Found\r\nLocation: /\xff\r\n\r\n",
]


@pytest.mark.parametrize("broken", BROKEN)
def test_a_broken_reply_is_a_failure(server: HostileServer, broken: bytes) -> None:
    server.replies["/x"] = broken
    with pytest.raises(UrlFailed) as caught:
        get(server.url("/x"))
    assert not isinstance(caught.value, UrlTimeout)


@pytest.mark.parametrize("broken", [*BROKEN, reply(PICTURE), redirect("file:///x"), reply(b"", status="404 Gone")])
def test_the_connection_is_closed_even_while_the_error_is_held(broken: bytes) -> None:
    held: list[Failure] = []
    with HostileServer(replies={"/x": broken}) as server:
        try:
            get(server.url("/x"))
        except Failure as failure:
            held.append(failure)
    assert server.left_open == 0


@pytest.mark.parametrize("path", ["/reset", "/reset-in-body"])
def test_a_reset_connection_is_a_failure(server: HostileServer, path: str) -> None:
    with pytest.raises(UrlFailed, match="broke off"):
        get(server.url(path))


def test_a_body_longer_than_its_length_ends_there(server: HostileServer) -> None:
    server.replies["/x"] = reply(b"abcdef", length=3)
    assert get(server.url("/x")) == b"abc"


@pytest.mark.parametrize("status", [201, 204, 206, 304, 400, 401, 404, 500, 503])
def test_a_status_other_than_200_is_told(server: HostileServer, status: int) -> None:
    server.replies["/x"] = reply(b"", status=f"{status} Whatever")
    with pytest.raises(UrlFailed, match=str(status)) as caught:
        get(server.url("/x"))
    assert caught.value.figures == {"upstream_status": status}


def test_a_port_where_nobody_listens_is_a_failure() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(UrlFailed, match="cannot be reached") as caught:
        get(f"http://127.0.0.1:{port}/")
    assert "127.0.0.1" not in caught.value.message


@given(st.binary(max_size=200), st.sampled_from([b"", b"HTTP/1.1 ", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 302 Found\r\n"]))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_nothing_but_our_own_errors_leaves_whatever_the_server_sends(
    server: HostileServer, start: bytes, noise: bytes
) -> None:
    server.replies["/x"] = start + noise
    with suppress(Failure):
        get(server.url("/x"), timeout_s=2)


# Names


def resolves(monkeypatch: pytest.MonkeyPatch, names: dict[str, list[str]]) -> list[str]:
    """Let these names have these addresses; returns the list of the names that were asked for."""
    asked: list[str] = []

    def getaddrinfo(host: str, port: int, **_: object) -> list[tuple[int, int, int, str, tuple[object, ...]]]:
        asked.append(host)
        if host not in names:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        families = [(socket.AF_INET6 if ":" in address else socket.AF_INET, address) for address in names[host]]
        return [(family, socket.SOCK_STREAM, 6, "", (address, port)) for family, address in families]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return asked


def test_a_name_for_a_loopback_address_is_refused_without_a_connection(
    server: HostileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolves(monkeypatch, {"evil.example": ["127.0.0.1"]})
    with pytest.raises(UrlRefused, match="not public") as caught:
        get(server.url("/picture", host="evil.example"), PUBLIC)
    assert "127.0.0.1" not in caught.value.message
    assert server.connections == 0


def test_one_inadmissible_address_among_public_ones_refuses_the_name(
    server: HostileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolves(monkeypatch, {"evil.example": ["8.8.8.8", "127.0.0.1"]})
    with pytest.raises(UrlRefused):
        get(server.url("/picture", host="evil.example"), PUBLIC)
    assert server.connections == 0


def test_a_name_that_changes_its_address_is_never_connected_at_the_second(
    server: HostileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = iter(["8.8.8.8", "127.0.0.1", "127.0.0.1"])
    dialled: list[object] = []

    def getaddrinfo(host: str, port: int, **_: object) -> list[tuple[int, int, int, str, tuple[object, ...]]]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (next(answers), port))]

    def connect(connection: socket.socket, place: tuple[str, int]) -> None:
        dialled.append(place[0])
        raise ConnectionRefusedError

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    monkeypatch.setattr(socket.socket, "connect", connect)
    url = server.url("/picture", host="rebind.example")
    with pytest.raises(UrlFailed):
        get(url, PUBLIC)
    with pytest.raises(UrlRefused):
        get(url, PUBLIC)
    assert dialled == ["8.8.8.8"]
    assert server.connections == 0


def test_a_listed_name_may_resolve_to_loopback(server: HostileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    resolves(monkeypatch, {"pictures.internal.example": ["127.0.0.1"]})
    url = server.url("/picture", host="pictures.internal.example")
    assert get(url, UrlPolicy.parse("*.internal.example")) == PICTURE


def test_an_unlisted_name_is_refused_without_asking_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = resolves(monkeypatch, {})
    with pytest.raises(UrlRefused, match="allow-list"):
        get("http://secret.attacker.example/", UrlPolicy.parse("pictures.example"))
    assert asked == []


def test_the_next_address_is_tried_when_the_first_refuses(
    server: HostileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolves(monkeypatch, {"two.example": ["127.0.0.2", "127.0.0.1"]})
    assert get(server.url("/picture", host="two.example"), UrlPolicy.parse("two.example")) == PICTURE


def test_an_unknown_name_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    resolves(monkeypatch, {})
    with pytest.raises(UrlUnresolved, match="not known"):
        get("http://no-such-name.example/", PUBLIC)


def test_nothing_is_fetched_when_it_is_off(server: HostileServer) -> None:
    with pytest.raises(UrlRefused, match="does not fetch"):
        get(server.url("/picture"), UrlPolicy.parse("off"))
    assert server.connections == 0


# TLS


@needs_openssl
def test_a_certificate_that_signs_itself_is_a_failure(tmp_path: Path) -> None:
    _, context = self_signed(tmp_path, "127.0.0.1")
    with HostileServer(context) as server, pytest.raises(UrlFailed, match="certificate is not signed"):
        get(server.url("/picture"))


@needs_openssl
@pytest.mark.parametrize(("name", "outcome"), [("pictures.example", "bytes"), ("127.0.0.1", "url_failed")])
def test_the_certificate_is_checked_for_the_name_in_the_url(tmp_path: Path, name: str, outcome: str) -> None:
    # In a process of its own: the authorities to trust are read once.
    authority, context = self_signed(tmp_path, name)
    program = """if True:
        import socket, sys
        from shared.errors import Failure
        from shared.url_policy import UrlPolicy
        from shared.urls import fetch
        socket.getaddrinfo = lambda host, port, **_: [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]
        try:
            got = fetch(sys.argv[1], UrlPolicy.parse("pictures.example"), max_bytes=1000, timeout_s=5)
            print(type(got).__name__, end="")
        except Failure as failure:
            print(failure.code, end="")
    """
    with HostileServer(context) as server:
        command = [sys.executable, "-c", program, server.url("/picture", host="pictures.example")]
        ran = subprocess.run(command, env={"SSL_CERT_FILE": str(authority)}, capture_output=True, text=True, check=True)
    assert ran.stdout == outcome
