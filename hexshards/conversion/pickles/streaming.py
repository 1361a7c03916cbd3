"""Stream a pickle through a window of a megabyte: it is read while it is decompressed, and never lies in memory whole.

What is found in it by bytes (pickles.streaming_compiled) is packed at once; the machine of pickles.machine reads all
else, as ever. A pickle that does anything unusual on the way is given up, to be read whole (pickles.scanner), which
decides what is wrong with it: nothing is refused here, and nothing taken that would be refused there.
"""

from __future__ import annotations

import bisect
import mmap
import struct
import sys
from collections import deque
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from hexshards.conversion.pickles.frames import Frames
from hexshards.conversion.pickles.frames_compiled import FrameCopier
from hexshards.conversion.pickles.lookahead import Run as Dicts
from hexshards.conversion.pickles.lookahead_compiled import WORD_BYTES
from hexshards.conversion.pickles.machine import (
    BYTES_PER_CONTAINER,
    LostError,
    Machine,
    RefusedError,
    garbage_kept,
)
from hexshards.conversion.pickles.scanner import (
    DictsOfKind,
    Repeats,
    SimilarDicts,
    distinct,
    joined,
    means_the_same,
    signed,
)
from hexshards.conversion.pickles.streaming_compiled import (
    LATER_ENTRY,
    UNKNOWN_ENTRY,
    UNSOUND,
    Packer,
    Run,
    joined_runs,
    leaves_of,
)
from hexshards.conversion.pickles.templates import GETS, Bytes, Numbers, Slot, Template
from hexshards.errors import DataError
from hexshards.game.validation import Plain
from hexshards.storage.files import PIECE_BYTES

WINDOW_BYTES, AHEAD_BYTES, BEHIND_BYTES = 1 << 20, 64 << 10, 16 << 10
"""Held of a pickle at least; looked ahead of an opcode, whose operand ends within that; and kept behind one, where a
dict may begin that is to be learnt."""

UNSOUND_FLOOR, DICTS_PER_UNSOUND = 64, 64
"""Dicts of a kind that may be left to the machine because they can't be packed: floor + dicts / 64. A file of others is
read faster whole."""

_DAMAGED = (RefusedError, DataError, LookupError, ValueError, TypeError, OverflowError, AttributeError, struct.error)
"""What a pickle may do that makes no sense."""


def stream_records(pieces: Iterable[bytes], *, expected_bytes: int, key: str) -> object:
    """What scanner.load_records makes of a pickle that comes in pieces, of about so many bytes altogether.

    Raises LostError where it has to be read whole, if only to find out what is wrong with it.
    """
    if sys.byteorder != "little":
        raise LostError
    window = Window(pieces)
    repeats = _Streamed(key, window, expected_bytes)
    try:
        with garbage_kept():
            value = _Windowed(window, repeats).run()
        window.read_out()
        repeats.check(())
    except _DAMAGED as error:
        raise LostError from error
    return value


class Window:
    """A part of a pickle without its frames, as ``data[:size]``."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self.data = mmap.mmap(-1, WINDOW_BYTES + PIECE_BYTES + WORD_BYTES)
        self.size = self.gone = 0
        """Bytes that are there, and of those that were before them."""
        self.cuts = deque[int]()
        """Where frames were, counted from the beginning of the pickle; what is left behind is taken out."""
        self.ended = False
        self.bytes = np.frombuffer(self.data, dtype=np.uint8)
        self._pieces, self._frames, self._noted = iter(pieces), Frames(), 0
        self._copier = FrameCopier(self.bytes[:-WORD_BYTES])

    @property
    def low(self) -> int:
        """From where on too little lies ahead."""
        return self.size if self.ended else self.size - AHEAD_BYTES

    def move(self, at: int) -> int:
        """Let go of what lies far behind a place, and read on: by how much all moved."""
        gone = max(0, at - BEHIND_BYTES)
        self.data.move(0, gone, self.size - gone)
        self.size -= gone
        self.gone += gone
        while self.size < WINDOW_BYTES and not self.ended:
            self._more()
        self.cuts.extend(cut.place for cut in self._frames.cuts[self._noted :])
        self._noted = len(self._frames.cuts)
        return gone

    def _more(self) -> None:
        """Put the next piece behind the others."""
        frames = self._frames
        if (piece := next(self._pieces, None)) is None:
            self.ended = True
            self._put(frames.rest())
            return
        if (left := frames.left) is not None:
            copied = self._copier.copy(piece, self.size, left)
            frames.passed(copied.written, left=copied.left, cuts=copied.cuts)
            self.size += copied.written
            piece = piece[copied.read :]
        for view in frames.without(piece):
            self._put(view)

    def _put(self, view: memoryview) -> None:
        self.data[self.size : self.size + len(view)] = view  # refuses what there is no room for
        self.size += len(view)

    def read_out(self) -> None:
        """Read the rest, for its checksum. Raises LostError where a frame did not hold what it claimed."""
        while not self.ended:
            self.move(self.size)
        if not self._frames.sound:
            raise LostError


class _Windowed(Machine):
    """A machine that moves on with a window."""

    __slots__ = ("window",)

    def __init__(self, window: Window, shortcut: _Streamed) -> None:
        super().__init__(b"", shortcut)
        self.data, self.window = window.data, window
        self._move()

    def pass_cuts(self, at: int) -> None:
        window = self.window
        if at >= window.size:
            raise LostError  # an opcode took what is not there
        while window.cuts and window.cuts[0] <= at + window.gone:
            if window.cuts.popleft() < at + window.gone:
                raise LostError
        if at >= window.low:
            self._move()
        self._look_ahead()

    def leap_to(self, at: int, *, count: int) -> None:
        self.at = at
        self.leaps += count
        self._look_ahead()

    def _look_ahead(self) -> None:
        window = self.window
        self.cut = min(window.low, window.cuts[0] - window.gone) if window.cuts else window.low

    def _move(self) -> None:
        before = self.window.gone + self.window.size
        gone = self.window.move(self.at)
        self.at -= gone
        self.apart -= gone
        self.starts = {height: start - gone for height, start in self.starts.items()}
        # what a pickle may make follows what came of it
        came = self.window.gone + self.window.size - before
        self.containers_left += came // BYTES_PER_CONTAINER
        self.copies_left += came
        self._look_ahead()


class _Kinds:
    """Where kinds are taken up that can be packed: a hexshards.conversion.pickles.lookahead.Lookahead."""

    def __init__(self, packer: Packer) -> None:
        self.packer = packer

    def add(self, template: Template, at: int) -> None:
        if not self.packer.add(template):
            raise LostError

    def run(self, at: int) -> Dicts:
        raise NotImplementedError


class _Streamed(Repeats):
    """The kinds of one pickle, and all that was found of them. Dicts go by their numbers, counted from the first."""

    def __init__(self, key: str, window: Window, expected_bytes: int) -> None:
        self.packer = Packer(window.bytes)
        super().__init__(key, window.data, _Kinds(self.packer))
        self.window, self.expected_bytes = window, expected_bytes
        self.runs, self.firsts, self.count, self.unsound = list[Run](), list[int](), 0, 0
        self.kinds: dict[int, _PackedDicts] = {}

    def leap(self, machine: Machine) -> bool:
        if not self.templates:
            return False
        self.memo = machine.memo
        if (run := self._run(machine)) is None:
            return False
        end = int(run.starts[-1] + self.packer.lengths[run.kinds[-1]])
        self._pass_cuts(run, end)
        dicts = SimilarDicts(self, np.arange(self.count, self.count + len(run.kinds)), run.kinds)
        self.firsts.append(self.count)
        self.runs.append(run)
        self.count += len(dicts)
        self.taken.append(dicts)
        self.bases.append(run.bases)
        memos, containers = self.makes[run.kinds].sum(axis=0).tolist()
        machine.stack.append(dicts)
        machine.memos += memos
        machine.containers_left -= containers
        machine.leap_to(end, count=len(dicts))
        return True

    def _run(self, machine: Machine) -> Run | None:
        # a byte is left, for the machine to see that it is there
        at, end = machine.at - 1, self.window.size - 1
        run, ended = self.packer.take(at, end, machine.memos)
        while run is None and ended.why == UNKNOWN_ENTRY:
            if ended.entry >= machine.memos:
                raise LostError
            # what a fixed reference means may stand in many places
            meaning = self.memo[ended.entry] if ended.entry in self.memo else self.recalled(ended.entry)
            if not means_the_same(meaning, self.packer.meanings[ended.means]):
                raise LostError
            self.packer.learn(ended.entry, ended.means)
            run, ended = self.packer.take(at, end, machine.memos)
        if run is None:
            self.unsound += ended.why == UNSOUND
            if ended.why == LATER_ENTRY or self.unsound > UNSOUND_FLOOR + self.count // DICTS_PER_UNSOUND:
                raise LostError
        return run

    def _pass_cuts(self, run: Run, end: int) -> None:
        """Raise LostError where a frame was in the middle of an opcode of one of the dicts."""
        cuts, gone = self.window.cuts, self.window.gone
        while cuts and cuts[0] < end + gone:
            cut = cuts.popleft() - gone
            row = int(run.starts.searchsorted(cut, side="right")) - 1
            if row < 0 or cut - int(run.starts[row]) not in self.templates[run.kinds[row]].token_places:
                raise LostError

    def landed(self, machine: Machine, start: int) -> None:
        if start >= 0:  # else it began before the window
            super().landed(machine, start)

    def bytes_ahead(self, machine: Machine) -> int:
        # gzip states the size of its last part alone, and of no more than 4 GiB
        return max(self.expected_bytes - self.window.gone, self.window.size) - machine.at

    def reader(self, start: int) -> Machine:
        number = bisect.bisect_right(self.firsts, start) - 1
        return Machine(self.packer.written(self.runs[number], start - self.firsts[number]))

    def check(self, cuts: Sequence[int]) -> None:
        """Look up what leaves refer to, and what the dicts of each kind do, and keep only that."""
        if not self.taken:
            return
        meanings: dict[int, object] = {}
        leaves = max(len(leaves_of(template)) for template in self.templates)
        self.runs, self.firsts = [joined_runs(self.runs, leaves)], [0]
        for dicts, _ in joined(self.taken).by_kind():
            template = dicts.template
            for slot in leaves_of(template):
                if slot.opcode in GETS:
                    self.look_up(dicts.distinct(slot)[0].tolist(), meanings, None)
            for slot, meaning in template.fixed.items():
                entry = int.from_bytes(template.data[slot.offset : slot.end], "little")
                self.look_up([entry], meanings, meaning)
        self.memo, self.taken, self.bases = meanings, [], []

    def of_kind(self, kind: int, starts: Numbers) -> DictsOfKind:
        held = self.kinds.get(kind)
        if held is None or not np.array_equal(held.starts, starts):
            (run,) = self.runs
            leaves_LP = np.ascontiguousarray(run.leaves_PL[starts].T)
            held = self.kinds[kind] = _PackedDicts(self, self.templates[kind], starts, run, leaves_LP)
        return held


class _PackedDicts(DictsOfKind):
    """Dicts of one kind, of which leaves, stones and moves were kept."""

    is_packed = True

    def __init__(
        self, repeats: Repeats, template: Template, starts: Numbers, run: Run, leaves_LP: NDArray[np.uint64]
    ) -> None:
        super().__init__(repeats, template, starts)
        self._run, self._leaves = run, dict(zip(leaves_of(template), leaves_LP, strict=False))
        self._distinct: dict[Slot, tuple[Numbers, Numbers | None]] = {}

    def blobs(self, slot: Slot, rows: slice) -> Bytes:
        words: Bytes = self._leaves[slot][rows, None].view(np.uint8)
        return words[:, : slot.width]

    def numbers(self, slot: Slot) -> Numbers:
        words = self._leaves[slot]
        plain = words.astype(np.uint32).view(np.int32) if signed(slot) else words.view(np.int64)
        return np.asarray(plain, dtype=np.int64)

    def floats(self, slot: Slot) -> NDArray[np.float64]:
        return np.asarray(self._leaves[slot].view(">f8"), dtype=np.float64)

    def distinct(self, slot: Slot) -> tuple[Numbers, Numbers | None]:
        if slot not in self._distinct:
            numbers = self.numbers(slot)
            constant = (numbers == numbers[0]).all()
            self._distinct[slot] = (numbers[:1], None) if constant else (distinct(numbers), numbers)
        return self._distinct[slot]

    def packed(self, rows: slice) -> Plain:
        places = self.starts[rows]
        return Plain(self._run.stones_PW[places], self._run.moves_P[places])
