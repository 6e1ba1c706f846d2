"""COCO's run lengths: column by column, background first, compressed to a string.

Formats and figures are those of cocoapi's common/maskApi.c (rleEncode, rleToString, rleFrString, rleToBbox,
rleArea); what is found for a crop is what they give for the whole plane.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from shared.masks.placed import Measured, Placed
from shared.predictions import Box, Rle

if TYPE_CHECKING:
    import numpy.typing as npt

    from shared.geometry import HW
    from shared.tensors import Int64, UInt8

_BITS, _MORE, _SIGN = 5, 0x20, 0x10
_FIRST_LETTER = 48
_LONGEST = 7  # letters of one number: pictures of 2^34 pixels


def encoded(placed: Placed) -> Rle:
    """The mask of `placed` in its whole picture, to the letter what pycocotools' encode gives."""
    return from_runs(runs(placed), placed.source_hw)


def measured(placed: Placed) -> Measured:
    """The mask of `placed` as run lengths, with its area and its tight box."""
    return measure(runs(placed), placed.source_hw)


def decoded(rle: Rle) -> Placed:
    """The tight crop of the mask. Raises ValueError where `rle` is malformed."""
    columns = by_column(to_runs(rle), rle.size[0])
    if not len(columns):
        return Placed(0, 0, np.zeros((0, 0), np.bool_), rle.size)
    left, top, right, bottom = (int(side) for side in _box(columns, rle.size[0]))
    x, y = np.divmod(columns[:, 0], rle.size[0])
    height = bottom - top
    begin = (x - left) * (height + 1) + y - top
    change = np.zeros((right - left) * (height + 1), np.int8)  # one place more a column: there its last run may end
    change[begin] = 1
    change[begin + columns[:, 1] - columns[:, 0]] = -1
    bits = np.cumsum(change, dtype=np.int8, out=change).view(np.bool_).reshape(right - left, height + 1)
    return Placed(top, left, bits[:, :height].T, rle.size)


def area(rle: Rle) -> int:
    """The number of the mask's pixels. Raises ValueError where `rle` is malformed."""
    found = to_runs(rle)
    return int((found[:, 1] - found[:, 0]).sum())


def box(rle: Rle) -> Box:
    """The tight box of the mask, zeros where it has no pixel. Raises ValueError where `rle` is malformed."""
    return _box(to_runs(rle), rle.size[0])


def heart(rle: Rle) -> tuple[int, int]:
    """A pixel (x, y) deep in the mask: the middle of the middle one of the longest runs that it has in a column, which
    are those from nine tenths of the very longest; (0, 0) where it has no pixel. Raises ValueError where `rle` is
    malformed."""
    found = by_column(to_runs(rle), rle.size[0])
    if not len(found):
        return (0, 0)
    lengths = found[:, 1] - found[:, 0]
    longest = found[10 * lengths >= 9 * lengths.max()]
    x, y = divmod(int(longest[len(longest) // 2].sum()) // 2, rle.size[0])
    return (x, y)


def runs(placed: Placed) -> Int64:
    """Where the mask's pixels begin and end [N, 2] in the picture laid out column by column; no run leaves its
    column."""
    return column_runs(placed.bits.T, placed.top, placed.left, placed.source_hw[0])


def column_runs(columns: npt.NDArray[np.bool_], top: int, left: int, height: int) -> Int64:
    """The runs of a crop [w, h] whose first axis is x, at (`top`, `left`) of a picture of `height` rows."""
    w, h = columns.shape
    padded = np.zeros(w * (h + 1) + 1, np.bool_)  # a background pixel above each column, and one behind the last
    padded[:-1].reshape(w, h + 1)[:, 1:] = columns
    x, y = np.divmod(np.flatnonzero(padded[1:] != padded[:-1]), h + 1)
    edges: Int64 = (x + left) * height + (y + top)
    return edges.reshape(-1, 2)


def measure(found: Int64, source_hw: HW) -> Measured:
    """`found` [N, 2] as `runs` gives them."""
    return Measured(from_runs(found, source_hw), int((found[:, 1] - found[:, 0]).sum()), _box(found, source_hw[0]))


def from_runs(found: Int64, source_hw: HW) -> Rle:
    """Runs [N, 2], rising, of which one may begin where another ends."""
    edges = found.reshape(-1)
    touching = np.flatnonzero(edges[2::2] == edges[1:-1:2])
    if len(touching):
        edges = np.delete(edges, np.concatenate([2 * touching + 1, 2 * touching + 2]))
    total = source_hw[0] * source_hw[1]
    counts = np.append(edges, total)
    counts[1:] -= edges
    return Rle(source_hw, _text(counts if counts[-1] or len(counts) == 1 else counts[:-1]))


def to_runs(rle: Rle) -> Int64:
    """Where the mask's runs begin and end [N, 2] in the picture laid out column by column; a run may go on over
    several columns. Raises ValueError where `rle` is malformed."""
    height, width = rle.size
    counts = _counts(rle.counts)
    if height < 1 or width < 1 or (counts < 0).any() or int(counts.sum()) != height * width:
        raise ValueError(f"run lengths: expected the {height} x {width} pixels of size, found {int(counts.sum())}")
    ends = np.cumsum(counts)
    found = np.stack([ends[: len(ends) // 2 * 2 : 2], ends[1::2]], axis=1)
    return found[found[:, 1] > found[:, 0]]


def by_column(found: Int64, height: int) -> Int64:
    """The same pixels in runs that do not leave their column."""
    first, last = found[:, 0] // height, (found[:, 1] - 1) // height
    parts = last - first + 1
    if not len(found) or parts.max() == 1:
        return found
    number = np.arange(parts.sum()) - np.repeat(np.cumsum(parts) - parts, parts)
    begin = (np.repeat(first, parts) + number) * height
    split = np.stack([begin, begin + height], axis=1)
    whole = np.repeat(found, parts, axis=0)
    by_column: Int64 = np.clip(split, whole[:, :1], whole[:, 1:])
    return by_column


def _box(found: Int64, height: int) -> Box:
    if not len(found):
        return (0.0, 0.0, 0.0, 0.0)
    begin_x, begin_y = np.divmod(found[:, 0], height)
    end_x, end_y = np.divmod(found[:, 1] - 1, height)
    whole = bool((end_x > begin_x).any())
    top, bottom = (0, height) if whole else (int(begin_y.min()), int(end_y.max()) + 1)
    return (float(begin_x[0]), float(top), float(end_x[-1] + 1), float(bottom))


def _text(counts: Int64) -> str:
    """Numbers in groups of five bits, the lowest first; from the fourth on each is the difference from the second
    before it."""
    numbers = counts.copy()
    numbers[3:] -= counts[1:-2]
    magnitudes = numbers ^ (numbers >> 63)
    places = _BITS * np.arange(int(magnitudes.max()).bit_length() // _BITS + 1)[:, None]
    goes_on = magnitudes >> (places + _BITS - 1) != 0
    letters = (numbers >> places & 0x1F) + (goes_on * _MORE + _FIRST_LETTER)
    shown = np.ones(letters.shape, np.bool_)
    shown[1:] = goes_on[:-1]
    text: bytes = letters.astype(np.uint8).T[shown.T].tobytes()
    return text.decode("ascii")


def _counts(text: str) -> Int64:
    groups = _groups(text)
    is_last = groups & _MORE == 0
    if not len(groups) or not is_last[-1]:
        raise ValueError("run lengths: the last number is cut off")
    ends = np.flatnonzero(is_last)
    lengths = np.diff(ends, prepend=-1)
    if lengths.max() > _LONGEST:
        raise ValueError(f"run lengths: expected numbers of at most {_LONGEST} letters, found {int(lengths.max())}")
    place = np.arange(len(groups)) - np.repeat(ends - lengths + 1, lengths)
    parts = (groups.astype(np.int64) & 0x1F) << (_BITS * place)
    numbers: Int64 = np.add.reduceat(parts, ends - lengths + 1)
    numbers[groups[ends] & _SIGN != 0] -= 1 << (_BITS * lengths[groups[ends] & _SIGN != 0])
    numbers[1::2] = np.cumsum(numbers[1::2])
    numbers[2::2] = np.cumsum(numbers[2::2])
    return numbers


def _groups(text: str) -> UInt8:
    try:
        letters = np.frombuffer(text.encode("ascii"), np.uint8)
    except UnicodeEncodeError as error:
        raise ValueError(f"run lengths: {text[error.start]!r} is no letter of theirs") from error
    groups: UInt8 = letters - np.uint8(_FIRST_LETTER)
    wrong = np.flatnonzero(groups > 63)
    if len(wrong):
        raise ValueError(f"run lengths: {text[wrong[0]]!r} is no letter of theirs")
    return groups
