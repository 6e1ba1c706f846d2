"""What the benchmark of the backends measures with; that it measures is seen by running it."""

from __future__ import annotations

import socket
from pathlib import Path
from threading import Thread

import pytest

from shared import backends
from shared.call import Call
from shared.local import LocalPredictor
from shared.manifest import read_bundle
from shared.settings import Settings
from tests.bench.backends import networks
from tests.bench.backends.loop import Clock, Way, alone, rested, together
from tests.bench.backends.relay import relay
from tests.bench.backends.sides import same
from tests.bench.pictures import tiny


class Counted:
    """Ways that count how often they were made and done."""

    def __init__(self) -> None:
        self.made = 0
        self.done: list[int] = []

    def __call__(self) -> Way:
        self.made += 1
        return Way(lambda: self.done.append(1), lambda _answer: len(self.done))


def test_a_side_makes_as_many_calls_as_it_is_told() -> None:
    assert alone(Counted())(5, Clock()) == 5


def test_clients_share_the_calls_that_they_are_told_to_make() -> None:
    counted = Counted()
    together(counted, 3, own=False)(20, Clock())
    assert len(counted.done) == 20


@pytest.mark.parametrize(("own", "made"), [(True, 3), (False, 1)])
def test_each_client_has_a_way_of_its_own_only_where_it_should(own: bool, made: int) -> None:
    counted = Counted()
    together(counted, 3, own=own)(3, Clock())
    assert counted.made == made


def test_what_happens_between_rested_calls_is_not_timed() -> None:
    clock = Clock()
    rested(Counted(), tiny())(50, clock)
    begun = Clock()
    with begun.timed():
        rested(Counted(), tiny())(50, Clock())
    assert clock.cpu_s < begun.cpu_s / 2


@pytest.mark.parametrize(
    ("other", "expected"),
    [({"scores": [0.90000001, 3]}, True), ({"scores": [0.91, 3]}, False), ({"scores": [0.9]}, False), ({}, False)],
)
def test_sides_say_the_same_but_for_the_last_digits(other: object, expected: bool) -> None:
    assert same({"scores": [0.9, 3]}, other) is expected


def test_the_relay_counts_what_goes_to_the_server_and_not_what_comes_back() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with server.accept()[0] as connection:
                connection.sendall(connection.recv(100) * 3)

        Thread(target=serve, daemon=True).start()
        with relay(f"http://127.0.0.1:{server.getsockname()[1]}") as between:
            with socket.create_connection(("127.0.0.1", int(between.url.rpartition(":")[2]))) as client:
                client.sendall(b"seven b")
                assert client.recv(21, socket.MSG_WAITALL) == b"seven b" * 3
            assert between.sent == 7


def test_the_network_that_costs_nothing_finds_its_six_things_in_every_picture(tmp_path: Path) -> None:
    bundle = read_bundle(networks.write_constant(tmp_path / "constant"))
    predictor = LocalPredictor(bundle, lambda: backends.connect("onnx", Settings()), max_pixels=1_000_000)
    predictor.open(warm_up=False)
    drawn = predictor.predict(tiny(), predictor.parse({}), Call("bench", 60), None, lambda _call: None)
    assert [found.score for found in drawn.prediction.predictions] == pytest.approx([0.95, 0.9, 0.85, 0.8, 0.75, 0.7])
