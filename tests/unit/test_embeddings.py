"""The memory of what encoders have made: bounded, made once, never mixed."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING

import numpy as np
import pytest

from shared import embedding_files
from shared.call import Call
from shared.embeddings import Memo
from shared.errors import DeadlineExceeded

if TYPE_CHECKING:
    from shared.tensors import Tensors

ONE_BYTES = 4000


def arrays(value: float = 0.0) -> Tensors:
    return {"image_embeddings": np.full(1000, value, np.float32)}


def value(found: Tensors) -> float:
    return float(found["image_embeddings"][0])


def call(timeout_s: float = 60) -> Call:
    return Call("test", timeout_s)


class Maker:
    """Makes arrays of one value, and counts how often."""

    def __init__(self, of: float = 0.0, wait: Callable[[], object] | None = None) -> None:
        self.count, self._of, self._wait = 0, of, wait

    def __call__(self) -> Tensors:
        self.count += 1
        if self._wait is not None:
            self._wait()
        return arrays(self._of)


def test_what_was_made_once_is_kept() -> None:
    memo, maker = Memo(ONE_BYTES), Maker(3)
    assert [value(memo.kept("a", call(), maker)) for _ in range(2)] == [3, 3]
    assert maker.count == 1
    assert memo.has("a")


def test_another_key_is_made_for_itself() -> None:
    memo = Memo(2 * ONE_BYTES)
    assert value(memo.kept("a", call(), Maker(1))) == 1
    assert value(memo.kept("b", call(), Maker(2))) == 2


def test_the_least_recently_used_is_given_up_first() -> None:
    memo = Memo(2 * ONE_BYTES)
    for key in ("a", "b", "a", "c"):
        memo.kept(key, call(), Maker())
    assert [key for key in "abc" if memo.has(key)] == ["a", "c"]
    assert memo.kept_bytes == 2 * ONE_BYTES


def test_what_is_larger_than_the_memory_is_given_but_not_kept() -> None:
    memo = Memo(ONE_BYTES - 1)
    assert value(memo.kept("a", call(), Maker(1))) == 1
    assert not memo.has("a")
    assert memo.kept_bytes == 0


def test_what_is_kept_cannot_be_written_to() -> None:
    found = Memo(ONE_BYTES).kept("a", call(), Maker())
    with pytest.raises(ValueError, match="read-only"):
        found["image_embeddings"][0] = 1


@pytest.mark.parametrize("max_bytes", [0, ONE_BYTES])
def test_many_that_ask_at_once_wait_for_one_making(max_bytes: int) -> None:
    memo, gate = Memo(max_bytes), Event()
    maker = Maker(5, lambda: gate.wait(10))
    with ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(memo.kept, "a", call(), maker) for _ in range(8)]
        while not maker.count:
            pass
        gate.set()
        assert [value(one.result()) for one in asked] == [5] * 8
    assert maker.count <= (1 if max_bytes else 8)


def test_who_waits_waits_no_longer_than_his_own_deadline() -> None:
    memo, gate = Memo(ONE_BYTES), Event()
    maker = Maker(wait=lambda: gate.wait(10))
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(memo.kept, "a", call(), maker)
        while not maker.count:
            pass
        with pytest.raises(DeadlineExceeded):
            memo.kept("a", call(0.05), Maker())
        gate.set()
        first.result()


def test_after_a_maker_that_failed_the_next_one_tries() -> None:
    memo, gate = Memo(ONE_BYTES), Event()

    def failing() -> Tensors:
        gate.wait(10)
        raise RuntimeError("no memory")

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(memo.kept, "a", call(), failing)
        while not memo.has("a"):
            pass
        second = pool.submit(memo.kept, "a", call(), Maker(7))
        gate.set()
        with pytest.raises(RuntimeError):
            first.result()
        assert value(second.result()) == 7


def test_a_failure_leaves_nothing_behind() -> None:
    memo = Memo(ONE_BYTES)
    with pytest.raises(ZeroDivisionError):
        memo.kept("a", call(), lambda: {"x": np.zeros(1 // 0)})
    assert not memo.has("a")


def test_many_keys_asked_for_by_many_never_mix() -> None:
    memo = Memo(5 * ONE_BYTES)  # so that some are given up all the time
    with ThreadPoolExecutor(8) as pool:
        asked = [(key % 9, pool.submit(memo.kept, str(key % 9), call(), Maker(key % 9))) for key in range(500)]
        assert all(value(one.result()) == key for key, one in asked)
    assert memo.kept_bytes <= 5 * ONE_BYTES


def test_a_folder_keeps_them_for_the_next_process(tmp_path: Path) -> None:
    Memo(ONE_BYTES, tmp_path).kept("abc", call(), Maker(4))
    maker, memo = Maker(9), Memo(ONE_BYTES, tmp_path)
    assert memo.has("abc")
    found = memo.kept("abc", call(), maker)
    assert (value(found), maker.count) == (4, 0)
    assert found["image_embeddings"].dtype == np.float32


def test_shapes_and_half_floats_come_back_from_a_folder(tmp_path: Path) -> None:
    made: Tensors = {"a": np.arange(6, dtype=np.float16).reshape(1, 2, 3), "b": np.zeros((2, 0), np.float32)}
    embedding_files.write(tmp_path, "abc", made)
    found = embedding_files.read(tmp_path, "abc")
    assert found is not None
    assert all((found[name] == made[name]).all() and found[name].dtype == made[name].dtype for name in made)
    assert [found[name].shape for name in made] == [(1, 2, 3), (2, 0)]


@pytest.mark.parametrize("damage", [b"", b"abc", b"\x00" * 5000])
def test_a_damaged_file_is_logged_and_made_anew(
    tmp_path: Path, damage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    embedding_files.place(tmp_path, "abc").write_bytes(damage)
    with caplog.at_level(logging.WARNING, "thinlens"):
        assert value(Memo(ONE_BYTES, tmp_path).kept("abc", call(), Maker(2))) == 2
    assert "abc.embedding is damaged" in caplog.text
    assert value(Memo(ONE_BYTES, tmp_path).kept("abc", call(), Maker(3))) == 2


def test_one_flipped_bit_is_found(tmp_path: Path) -> None:
    embedding_files.write(tmp_path, "abc", arrays(1))
    path = embedding_files.place(tmp_path, "abc")
    content = bytearray(path.read_bytes())
    content[2000] ^= 1
    path.write_bytes(content)
    assert embedding_files.read(tmp_path, "abc") is None


def test_a_file_under_anothers_name_is_not_taken(tmp_path: Path) -> None:
    embedding_files.write(tmp_path, "abc", arrays(1))
    embedding_files.place(tmp_path, "abc").rename(embedding_files.place(tmp_path, "def"))
    assert embedding_files.read(tmp_path, "def") is None


def test_a_folder_that_cannot_be_written_is_logged_and_does_no_harm(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    place = tmp_path / "file"
    place.touch()
    with caplog.at_level(logging.WARNING, "thinlens"):
        assert value(Memo(ONE_BYTES, place).kept("abc", call(), Maker(2))) == 2
    assert "cannot be" in caplog.text


def test_nothing_half_written_is_left_in_the_folder(tmp_path: Path) -> None:
    Memo(ONE_BYTES, tmp_path).kept("abc", call(), Maker(4))
    assert [path.name for path in tmp_path.iterdir()] == ["abc.embedding"]
