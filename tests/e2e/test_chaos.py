"""The real model server is killed, frozen, slowed down, spoilt, put to sleep and given another model while eight
clients post a photograph: every request has the right answer or the right failure, inside its deadline, and once the
server is well all is well within seconds. The function is a process of its own behind its own HTTP server.

Bits that change inside a tensor, or inside the JSON text of a forwarded picture's answer, are what no client can see:
the protocols have no checksum. What is spoilt here is everything that says how an answer is to be read. gRPC is cut and
fed garbage but not flipped bit by bit: told of the connection's end by a number that does not exist, grpc's own library
ends the whole process.
"""

from __future__ import annotations

import gc
import os
import re
import signal
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any
from urllib.request import Request, urlopen

import numpy as np
import pytest
import requests

from model_server import tfserving
from model_server.triton.config import Serving
from model_server.triton.repository import write_repository
from shared.backends import Run, connect
from shared.call import Call
from shared.errors import SERVER_FAILURES, DeadlineExceeded
from shared.manifest import read_bundle
from shared.settings import Settings
from tests import chaos, servers, tfserving_server
from tests.chaos import CLIENTS, MARGIN_S, RECOVERY_S, TIMEOUT_S, Clients, Held, Spoil, Wire, held, held_by, until
from tests.clients import client
from tests.model_servers import ModelServer, triton
from tests.servers import ROOT, Server

if TYPE_CHECKING:
    from shared.tensors import Tensors

pytestmark = pytest.mark.servers

BUNDLE = ROOT / "model_server" / "models" / "coco-ssd-mobilenet-v2"
NETWORK = "coco-ssd-mobilenet-v2.detector"
ARMS: Mapping[str, Mapping[str, str]] = {
    "http": {},
    "grpc": {"THINLENS_BACKEND_PROTOCOL": "grpc"},
    "encoded": {"THINLENS_FORWARD": "encoded"},
}
EVERY_ARM = pytest.mark.parametrize("arm", ARMS)
_WAKE_S = 1.0
_WITH_FALLBACK_S = 1.5
"""The longest answer of the embedded backend to eight clients at once, on two busy cores."""


@pytest.fixture(scope="module")
def right(photo: bytes) -> list[Mapping[str, Any]]:
    """What the embedded backend sees in the photograph."""
    reply = client().post("/predict", data=photo, content_type="image/jpeg").get_json()
    found: list[Mapping[str, Any]] = reply["predictions"]
    assert len(found) > 4
    return found


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("triton") / "repository"
    write_repository([BUNDLE], folder, Serving(platform="python", forward="encoded"))
    return folder


@pytest.fixture(scope="module")
def started(repository: Path) -> Iterator[ModelServer]:
    with triton(repository, flags=["--model-control-mode=explicit", "--load-model=*"]) as server:
        yield server


@pytest.fixture
def server(started: ModelServer) -> ModelServer:
    """Triton, and well."""
    if not started.pids:
        started.start()
    return started


@contextmanager
def function(
    model_server_port: int, arm: str, door: Callable[..., Server] = servers.container, /, **settings: str
) -> Iterator[Server]:
    """The function, before the model server at that port."""
    scheme = "grpc" if arm == "grpc" else "http"
    given = {
        "THINLENS_BACKEND": "triton",
        "THINLENS_BACKEND_URL": f"{scheme}://127.0.0.1:{model_server_port}",
        "THINLENS_TIMEOUT_S": f"{TIMEOUT_S:g}",
        "THINLENS_WAKE_S": f"{_WAKE_S:g}",
        "THINLENS_LOG_LEVEL": "warning",
        **ARMS[arm],
    }
    with door(given | {f"THINLENS_{name.upper()}": value for name, value in settings.items()}) as running:
        yield running
        assert "Traceback" not in running.log, running.log


def port(server: ModelServer, arm: str) -> int:
    return int((server.grpc_url if arm == "grpc" else server.http_url).rpartition(":")[2])


def freeze(server: ModelServer) -> None:
    """The server's own process: its Python models' processes take a frozen neighbour for a dead one if they freeze and
    wake with it, which is a fault of theirs."""
    os.kill(server.pids[0], signal.SIGSTOP)


def thaw(server: ModelServer) -> None:
    os.kill(server.pids[0], signal.SIGCONT)


def report(what: str, clients: Clients, began: float, back: float, running: Server) -> None:
    first_s, last_s = clients.recovery_s(back)
    print(  # noqa: T201 - what these tests are run for
        f"\n{what}: before {clients.counts(until=began)}; meanwhile {clients.counts(began, back)}; after "
        f"{clients.counts(back)}; slowest {clients.slowest_s():.2f} s; back: first 200 after {first_s:.2f} s, last "
        f"failure {last_s:.2f} s; {held(running)}"
    )


def check_recovered(clients: Clients, back: float) -> None:
    """Every answer was right, and all are 200 again soon enough."""
    clients.check()
    first_s, last_s = clients.recovery_s(back)
    assert max(first_s, last_s) <= RECOVERY_S, (first_s, last_s, clients.counts(back))


def well_for(clients: Clients, back: float, seconds: float) -> bool:
    """Whether nothing but 200s has come for so long."""
    since = max(back, monotonic() - seconds)
    return monotonic() - back > seconds and set(clients.counts(since)) in ({"200 triton"}, {"200 tfserving"})


def ride_out(what: str, clients: Clients, running: Server, hurt: Callable[[], None], mend: Callable[[], None]) -> None:
    """The clients ask before, while and after `hurt` and until all is well again after `mend`."""
    with clients.asking():
        until(lambda: len(clients.seen) >= clients.count)
        began = monotonic()
        hurt()
        mend()
        back = monotonic()
        until(lambda: monotonic() > back + RECOVERY_S + 1 or well_for(clients, back, 1.0))
    report(what, clients, began, back, running)
    check_recovered(clients, back)


@EVERY_ARM
def test_the_server_is_killed_and_started_again(
    arm: str, server: ModelServer, photo: bytes, right: list[Mapping[str, Any]]
) -> None:
    def hurt() -> None:
        server.kill()
        sleep(1.5)

    with function(port(server, arm), arm) as running:
        clients = Clients(running.url, photo, right)
        ride_out(f"killed, {arm}", clients, running, hurt, server.start)
    assert clients.counts()["503 server_unreachable"] > 0


@EVERY_ARM
def test_the_server_freezes_for_a_while(
    arm: str, server: ModelServer, photo: bytes, right: list[Mapping[str, Any]]
) -> None:
    def hurt() -> None:
        freeze(server)
        sleep(TIMEOUT_S + 2)

    with function(port(server, arm), arm, wake_s="10") as running:
        clients = Clients(running.url, photo, right)
        ride_out(f"frozen, {arm}", clients, running, hurt, lambda: thaw(server))
    assert clients.counts()["504 server_timeout"] > 0


SPOILT: Mapping[str, Spoil] = {
    "late": chaos.late(TIMEOUT_S + 1),
    "dripping": chaos.dripping,
    "cut": chaos.cut,
    "closed": chaos.closed,
    "garbage": chaos.garbage,
    "flipped": chaos.flipping(400),
}
_NOT_SPOILT = {"grpc": {"flipped"}, "encoded": {"late", "closed"}}  # encoded goes by the same HTTP


@EVERY_ARM
def test_the_servers_answers_are_spoilt_on_their_way(
    arm: str, server: ModelServer, photo: bytes, right: list[Mapping[str, Any]]
) -> None:
    wire = Wire(port(server, arm))
    with wire.running(), function(wire.port, arm) as running:
        for name, spoil in SPOILT.items():
            if name in _NOT_SPOILT.get(arm, ()):
                continue
            clients = Clients(running.url, photo, right)
            until(clients.are_answered)

            def hurt(spoil: Spoil = spoil, slow: bool = name in ("late", "dripping")) -> None:
                wire.spoil = spoil
                sleep(TIMEOUT_S + 0.2 if slow else 1.5)

            ride_out(f"{name}, {arm}", clients, running, hurt, lambda: setattr(wire, "spoil", chaos.whole))


def test_a_server_that_is_slow_but_in_time_is_waited_for(
    server: ModelServer, photo: bytes, right: list[Mapping[str, Any]]
) -> None:
    wire = Wire(port(server, "http"))
    wire.spoil = chaos.late(0.4)
    with wire.running(), function(wire.port, "http", timeout_s="10") as running:
        clients = Clients(running.url, photo, right, timeout_s=10)
        with clients.asking():
            sleep(2)
        clients.check()
        assert set(clients.counts()) == {"200 triton"}


def test_the_server_is_asleep_and_wakes_while_requests_wait(
    server: ModelServer, photo: bytes, right: list[Mapping[str, Any]]
) -> None:
    server.kill()
    with function(port(server, "http"), "http", wake_s="10", timeout_s="20") as running:
        clients = Clients(running.url, photo, right, timeout_s=20)
        with clients.asking():
            until(lambda: requests.get(f"{running.url}/ready", timeout=5).json()["state"] == "warming")
            sleep(1)
            server.start()
            sleep(2)
        report("asleep, in time", clients, 0, monotonic(), running)
        clients.check()
        assert set(clients.counts()) == {"200 triton"}
        assert requests.get(f"{running.url}/ready", timeout=5).json()["state"] == "ready"


def test_the_server_sleeps_for_longer_than_a_request_may_wait(
    server: ModelServer, photo: bytes, right: list[Mapping[str, Any]]
) -> None:
    server.kill()
    with function(port(server, "http"), "http") as running:
        clients = Clients(running.url, photo, right)
        first = clients.once()
        assert (first.status, first.code, first.problem) == (503, "server_unreachable", "")
        assert 0.3 < first.took_s < _WAKE_S + MARGIN_S
        ready = requests.get(f"{running.url}/ready", timeout=5)
        assert (ready.status_code, ready.json()["state"]) == (503, "warming")
        assert int(ready.headers["Retry-After"]) >= 1
        server.start()
        assert until(clients.are_answered) <= RECOVERY_S


def ask_server(server: ModelServer, path: str) -> None:
    urlopen(Request(server.http_url + path, data=b"{}", method="POST"), timeout=30).close()


def state(running: Server) -> dict[str, Any]:
    found: dict[str, Any] = requests.get(f"{running.url}/ready", timeout=5).json()
    return found


@pytest.mark.parametrize("arm", ["http", "grpc"])
def test_the_model_is_taken_away_and_put_back(
    arm: str, server: ModelServer, photo: bytes, right: list[Mapping[str, Any]]
) -> None:
    def hurt() -> None:
        ask_server(server, f"/v2/repository/models/{NETWORK}/unload")
        until(lambda: state(running)["state"] == "warming", 5)
        sleep(1)

    with function(port(server, arm), arm) as running:
        clients = Clients(running.url, photo, right)
        load = f"/v2/repository/models/{NETWORK}/load"
        ride_out(f"taken away, {arm}", clients, running, hurt, lambda: ask_server(server, load))


REPLACED = {
    "another name": ('name: "boxes"', 'name: "boks"', "there is no 'boxes' on the model server"),
    "another dtype": ("data_type: TYPE_FP32", "data_type: TYPE_FP64", "expected dtype float64"),
    "another shape": (r"dims: \[1, 1917, 90\]", "dims: [1, 1917, 91]", "expected shape [1, 1917, 91]"),
}


@pytest.mark.parametrize("what", REPLACED)
def test_the_model_is_replaced_by_another_and_put_back(
    what: str, server: ModelServer, repository: Path, photo: bytes, right: list[Mapping[str, Any]]
) -> None:
    """Found by /ready, before anybody asks for a prediction; and where clients ask all the time, none the less."""
    old, new, said = REPLACED[what]
    config = repository / NETWORK / "config.pbtxt"
    kept = config.read_text(encoding="ascii")

    def serve(text: str) -> None:
        config.write_text(text, encoding="ascii")
        ask_server(server, f"/v2/repository/models/{NETWORK}/load")

    def hurt() -> None:
        changed, times = re.subn(old, new, kept, count=1)
        assert times == 1, kept
        serve(changed)
        until(lambda: said in state(running).get("reason", ""), 5)
        assert state(running)["error"]["code"] == "model_broken"
        sleep(0.5)

    idle, arm = what != "another name", "grpc" if what == "another dtype" else "http"
    with function(port(server, arm), arm) as running:
        clients = Clients(running.url, photo, right)
        until(clients.are_answered)
        try:
            if idle:
                hurt()
            steps = (lambda: sleep(0.5)) if idle else hurt, lambda: serve(kept)
            ride_out(f"replaced by one of {what}, {arm}", clients, running, *steps)
        finally:
            serve(kept)
    assert clients.counts()["503 model_broken"] > 0


@EVERY_ARM
def test_a_stand_in_answers_everything_that_the_server_does_not(
    arm: str, server: ModelServer, photo: bytes, right: list[Mapping[str, Any]]
) -> None:
    asleep_at = []

    def hurt() -> None:
        freeze(server)
        sleep(TIMEOUT_S)
        asleep_at.append(monotonic())
        sleep(1)
        server.kill()
        sleep(1)

    # A place for each client: those that wait behind others for a frozen server would be told that all are taken.
    with function(port(server, arm), arm, fallback="onnx", max_concurrency=str(CLIENTS)) as running:
        clients = Clients(running.url, photo, right)
        ride_out(f"stood in for, {arm}", clients, running, hurt, server.start)
        metrics = requests.get(f"{running.url}/metrics", timeout=5).text
    assert {seen.status for seen in clients.seen} == {200}
    assert {seen.backend for seen in clients.seen} == {"onnx", "triton"}
    assert max(seen.took_s for seen in clients.seen if seen.at - seen.took_s > asleep_at[0]) < _WITH_FALLBACK_S
    counted = re.findall(r"^thinlens_fallbacks_total{[^}]*} ([0-9.]+)$", metrics, re.MULTILINE)
    assert sum(map(float, counted)) == sum(seen.backend == "onnx" for seen in clients.seen)


def test_the_google_door_rides_out_a_kill_too(
    server: ModelServer, photo: bytes, right: list[Mapping[str, Any]]
) -> None:
    def hurt() -> None:
        server.kill()
        sleep(1)

    with function(port(server, "http"), "http", servers.google) as running:
        clients = Clients(running.url, photo, right)
        ride_out("killed, Google's door", clients, running, hurt, server.start)


def warm_up(server: tfserving_server.TfServing) -> None:
    """TensorFlow's first answer takes seconds; the real server can give it before it says that it is ready."""
    settings = Settings(backend="tfserving", backend_url=server.http_url)
    run = connect("tfserving", settings).open(read_bundle(BUNDLE).network("detector"))
    run({"image": np.zeros((1, 300, 300, 3), np.uint8)}, Call("warm-up", 60))


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_tensorflow_serving_is_frozen_and_killed(
    protocol: str, tmp_path: Path, photo: bytes, right: list[Mapping[str, Any]]
) -> None:
    """A stand-in for it, see tests.tfserving_server; it writes JSON too slowly for eight at once."""
    tfserving.write_repository(BUNDLE, tmp_path / "repository", tfserving.Options())
    with tfserving_server.tfserving(tmp_path / "repository") as server:

        def freeze_and_kill() -> None:
            server.pause()
            sleep(TIMEOUT_S + 1)
            for pid in server.pids:
                os.kill(pid, signal.SIGKILL)
            server.stop()
            sleep(1)

        def start_warm() -> None:
            server.start()
            warm_up(server)

        warm_up(server)
        url = server.grpc_url if protocol == "grpc" else server.http_url
        served = {"backend": "tfserving", "backend_url": url, "backend_protocol": protocol}
        with function(0, "http", **served) as running:
            clients = Clients(running.url, photo, right, count=2)
            ride_out(f"TensorFlow Serving, {protocol}", clients, running, freeze_and_kill, start_warm)
    assert {"200 tfserving", "504 server_timeout", "503 server_unreachable"} <= set(clients.counts())


_FEW, _MANY = 50, 1000
_LATE_S = 0.3
_SETTLE_S = 5.0


def check_nothing_left(early: Held, held_now: Callable[[], Held]) -> Held:
    """Threads, descriptors and memory are no more than they were, at the latest after a moment: the operating system
    and the other end take theirs to let go."""
    ends_at = monotonic() + _SETTLE_S
    while True:
        late = held_now()
        if late.threads <= early.threads + chaos.SPARE_THREADS and late.descriptors <= early.descriptors:
            assert late.megabytes < early.megabytes + 16
            return late
        assert monotonic() < ends_at, (early, late)
        sleep(0.1)


@pytest.mark.parametrize(("arm", "times"), [("http", 1000), ("grpc", 1000), ("encoded", 200)])
def test_a_thousand_failures_leave_nothing_behind(
    arm: str, times: int, server: ModelServer, photos: dict[str, Path]
) -> None:
    """Four failures on end and one answer, so that the server is not left alone and the next failure is a real one."""
    small = photos["chelsea"].read_bytes()
    right = client().post("/predict", data=small, content_type="image/jpeg").get_json()["predictions"]
    wire = Wire(port(server, arm))
    spoils: list[Spoil] = [chaos.deaf, chaos.cut, chaos.deaf, chaos.garbage, chaos.whole] * 8
    spoils[3] = chaos.late(_LATE_S)
    with wire.running(), function(wire.port, arm, backend_timeout_s="0.25", retries="0", wake_s="0") as running:
        clients = Clients(running.url, small, right)

        def fail(times: int) -> Held:
            failures = number = 0
            with requests.Session() as session:
                while failures < times:
                    wire.spoil, number = spoils[number % len(spoils)], number + 1
                    failures += clients.ask(session).status != 200
            wire.spoil = chaos.whole
            until(clients.are_answered)
            return held(running)

        with clients.asking():  # all the threads that its HTTP server will ever need
            sleep(1)
        clients.check()
        early = fail(_FEW)
        fail(times)
        late = check_nothing_left(early, lambda: held(running))
        print(f"\n{times} failures, {arm}: {early} -> {late}; {wire.spoilt} spoilt")  # noqa: T201
        assert until(clients.are_answered) < RECOVERY_S


CLIENTS_FAILURES = {
    "http": ([chaos.deaf, chaos.deaf, chaos.garbage, chaos.deaf, chaos.late(_LATE_S)], 0.05),
    # After any other failure grpc waits before it connects again, and says so at once to whoever calls meanwhile.
    "grpc": ([chaos.late(_LATE_S)], 0.01),
}
"""What happens to each call, and its time limit."""


@pytest.mark.parametrize("protocol", CLIENTS_FAILURES)
def test_a_thousand_failures_of_the_client_itself_leave_nothing_behind(protocol: str, server: ModelServer) -> None:
    """Without what leaves a failing server alone: every call is made."""
    inputs = {"image": np.zeros((1, 300, 300, 3), np.uint8)}
    wire, (spoils, limit_s) = Wire(port(server, protocol)), CLIENTS_FAILURES[protocol]
    with wire.running():
        url = f"{protocol}://127.0.0.1:{wire.port}"
        given = {"BACKEND": "triton", "BACKEND_URL": url, "BACKEND_PROTOCOL": protocol, "RETRIES": "0"}
        settings = Settings.from_environ({f"THINLENS_{name}": value for name, value in given.items()})
        run = connect("triton", settings).open(read_bundle(BUNDLE).network("detector"))
        failed: Counter[str] = Counter()

        def fail(times: int) -> None:
            for number in range(times):
                wire.spoil = spoils[number % len(spoils)]
                with pytest.raises((*SERVER_FAILURES, DeadlineExceeded)) as caught:
                    run(inputs, Call("failing", limit_s))
                failed[caught.type.__name__] += 1

        def held_here() -> Held:
            wire.drop()
            gc.collect()
            return held_by([os.getpid()])

        fail(_FEW)
        sleep(1)  # for what has been closed to be gone
        early = held_here()
        fail(_MANY)
        late = check_nothing_left(early, held_here)
        print(f"\n{_MANY} failures of the client, {protocol}: {dict(failed)}; {early} -> {late}")  # noqa: T201
        wire.spoil = chaos.whole
        assert until(lambda: answers(run, inputs)) < RECOVERY_S


def answers(run: Run, inputs: Tensors) -> bool:
    try:
        return set(run(inputs, Call("again", 2))) == {"boxes", "scores"}
    except SERVER_FAILURES:
        return False
