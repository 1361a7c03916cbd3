"""Spill source files: each is read once and becomes part of a sorted run, or is refused with a reason.

A spill is named by the name, size and times of its files, so what was read before is found without reading it again.
Files of a conversion of many are read in groups, so that there are at most MAX_SPILLS spills however many files.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from hexshards.conversion.options import ConvertSpec
from hexshards.conversion.read_sources import read_each
from hexshards.conversion.sorted_runs import ReadFile, Spill, find_spill, reject_entry, reject_lines, write_spill
from hexshards.conversion.sources import Input, source_name
from hexshards.dataset.index import Index
from hexshards.errors import DataError, InputRejected, printable
from hexshards.game.columns import UNKNOWN
from hexshards.game.positions import Positions
from hexshards.game.validation import Reject
from hexshards.storage.files import open_regular, publishing
from hexshards.units import counted, plural

MAX_SPILLS = 1024

FEW_FILES, SMALL_GROUP_BYTES = 64, 64 << 10
"""Of more files than few, small ones are read in groups of so many bytes: a spill takes 3 ms, whatever is in it."""

MARK_CHARS = 12
"""Of a file's SHA-256, where its name is not enough: 10,000 files of one name share 12 digits once in 5 million."""

Group = tuple[Input, ...]


@dataclass(frozen=True, slots=True)
class Refusal:
    """A whole file that was not read: why, and what to do."""

    path: str
    problem: str
    fix: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """What there is to read, and what is passed over because its contents were read already."""

    groups: tuple[Group, ...]
    repeated: tuple[str, ...]
    """Files whose contents another of these files has."""
    already: tuple[str, ...]
    """Files whose contents the dataset was made from."""

    @property
    def files(self) -> list[Input]:
        """The files to read."""
        return [file for group in self.groups for file in group]


def survey(inputs: Sequence[Input], *, scratch: Path, base: Index | None = None) -> Survey:
    """Sort out files of equal contents. Only files of equal size can be, so only those are looked into.

    Of copies the one whose name is the smallest stays, wherever it lies: a game is known by its file's name.
    """
    sizes = {file: file.path.stat().st_size for file in inputs}
    known = {file.sha256 for file in base.inputs} if base else set()
    # of a fresh conversion nothing is known, and where many files' spills would lie takes longer than their checksums
    spilled = any(scratch.glob("*.spill.json"))
    sha256 = partial(_sha256, scratch=scratch if spilled else None)
    shared = Counter(sizes.values()) + Counter({file.size_bytes for file in base.inputs} if base else ())
    digests = {file: sha256(file) for file in inputs if shared[sizes[file]] > 1}
    by_name = sorted(digests, key=lambda file: (file.path.name, str(file.path)), reverse=True)
    kept = {digests[file]: file for file in by_name}
    already = [str(file.path) for file in inputs if digests.get(file) in known]
    new = [file for file in inputs if digests.get(file) not in known]
    fresh = [file for file in new if file not in digests or kept[digests[file]] is file]
    repeated = [str(file.path) for file in new if file in digests and kept[digests[file]] is not file]
    apart = {file: sizes[same] for same, file in zip(fresh, _told_apart(fresh, sha256, base), strict=True)}
    return Survey(groups=tuple(_grouped(list(apart), apart)), repeated=tuple(repeated), already=tuple(already))


def _told_apart(files: Sequence[Input], sha256: Callable[[Input], str], base: Index | None) -> list[Input]:
    """The same files, those that share name and format with another one of other contents marked by what they hold."""
    names = Counter((source_name(file.path.name), file.format) for file in files)
    names += Counter((source_name(file.name), file.format) for file in (base.inputs if base else ()))
    return [
        replace(file, apart=sha256(file)[:MARK_CHARS]) if names[source_name(file.path.name), file.format] > 1 else file
        for file in files
    ]


def _sha256(file: Input, *, scratch: Path | None) -> str:
    if scratch and (spill := find_spill(stem_of((file,), scratch))) is not None:
        return spill.inputs[0].sha256
    with open_regular(file.path) as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _grouped(files: Sequence[Input], sizes: Mapping[Input, int]) -> list[Group]:
    full = 0 if len(files) <= FEW_FILES else SMALL_GROUP_BYTES
    if len(files) > MAX_SPILLS:  # with groups closed at so many bytes there are at most MAX_SPILLS / 2 + 1
        full = max(full, 2 * sum(sizes[file] for file in files) // MAX_SPILLS)
    groups, group, held = list[Group](), list[Input](), 0
    for file in files:
        group.append(file)
        held += sizes[file]
        if held >= full:
            groups.append(tuple(group))
            group, held = [], 0
    return [*groups, tuple(group)] if group else groups


def stem_of(group: Group, scratch: Path) -> Path:
    """Where the spill of some files lies: another place once one of them is changed, moved, replaced or told more."""
    folders = dict[str, str]()
    entries = [
        (_real(file.path, folders), file.path.name, file.format, *_stamp(file.path), *_told(file)) for file in group
    ]
    return scratch / hashlib.sha256(json.dumps(entries).encode()).hexdigest()[:32]


def _told(file: Input) -> tuple[object, ...]:
    """What it was told of the file besides; of a generation only where one is given, as what was spilled before it."""
    said = (file.skip, file.twins, file.apart)
    return said if file.generation == UNKNOWN else (*said, file.generation)


def _real(path: Path, folders: dict[str, str]) -> str:
    """The path without links; ``folders`` remembers those of folders, since each step of a path is a call."""
    if path.is_symlink():
        return os.path.realpath(path)
    folder, name = os.path.split(path)
    if folder not in folders:
        folders[folder] = os.path.realpath(folder)
    return os.path.join(folders[folder], name)


def _stamp(path: Path) -> tuple[int, int, int]:
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns


# one group ----------------------------------------------------------------------------------------------------------


def read_group(group: Group, stem: Path, *, spec: ConvertSpec) -> tuple[Group, Spill | tuple[Refusal, ...]]:
    """Read some files and spill them at ``stem``; with one of them refused, say so and spill none."""
    reads, refusals, side = list[ReadFile](), list[Refusal](), 0
    for file, read in zip(group, read_each(group, spec=spec), strict=True):
        try:
            if isinstance(read, DataError):
                raise read
            side = _common_side(side, read.positions, file)
            reads.append(read)
        except DataError as error:
            refusals.append(Refusal(str(file.path), error.problem, error.fix))
    return group, tuple(refusals) if refusals else write_spill(stem, reads, spec=spec)


def _common_side(side: int, positions: Positions, file: Input) -> int:
    """The side of the files so far, 0 for none, and of this one."""
    if side and len(positions) and positions.side != side:
        raise _other_side(positions.side, side, str(file.path))
    return positions.side if len(positions) else side


def _other_side(side: int, common: int, where: str) -> InputRejected:
    fix = "A dataset has one side: convert this file into another folder"
    return InputRejected(f"holds boards of side {side}, others of {common}", where=where, fix=fix)


# all of them --------------------------------------------------------------------------------------------------------


def judge(
    spills: Sequence[Spill], refusals: Sequence[Refusal], *, rejects: Path, max_rejects: int, side: int | None
) -> dict[str, int]:
    """Rejects by reason, after they were written down. Raises InputRejected when they are too many."""
    _write_down(spills, refusals, rejects)
    if refusals:
        refusal, more = refusals[0], ""
        if len(refusals) > 1:
            others = counted(len(refusals) - 1, "other file", verb="is/are")
            more = f", and {others} refused (see {rejects})"
        raise InputRejected(f"{printable(refusal.problem, width=300)}{more}", where=refusal.path, fix=refusal.fix)
    reasons = sum((Counter(spill.rejects) for spill in spills), Counter[str]())
    if reasons.total() > max_rejects:
        listed = ", ".join(f"{printable(reason)}: {count:,}" for reason, count in reasons.most_common(5))
        first = next(spill.first_reject for spill in spills if spill.rejects)
        raise InputRejected(
            f"{_counted(reasons.total(), spills)} rejected ({listed}), the first at {printable(first, width=200)}",
            where=str(rejects),
            fix=f"Look at that file; --max-rejects {reasons.total()} keeps all else",
        )
    if not any(file.positions for spill in spills for file in spill.inputs):
        raise InputRejected("no position was kept", where=str(rejects.parent), fix="Name files that hold some")
    filled = [spill for spill in spills if any(spill.rows.values())]
    common = side or Counter(spill.side for spill in filled).most_common(1)[0][0]
    for spill in filled:
        if spill.side != common:
            raise _other_side(spill.side, common, spill.inputs[0].name)
    return dict(reasons.most_common())


def _counted(rejects: int, spills: Sequence[Spill]) -> str:
    """So many rejects, in words for what they are: lines of game records, or examples."""
    words = sorted({word for spill in spills for word in spill.reject_places})
    *others, last = words if rejects != 1 else words[:1]
    return counted(rejects, " and ".join([*map(plural, others), last]), verb="was/were")


def _write_down(spills: Sequence[Spill], refusals: Sequence[Refusal], rejects: Path) -> None:
    rejects.unlink(missing_ok=True)
    if not refusals and not any(spill.rejects for spill in spills):
        return
    with publishing(rejects) as file:
        for refusal in refusals:
            line = reject_entry(refusal.path, Reject("file", "refused", refusal.problem))
            file.write(json.dumps(line).encode() + b"\n")
        for spill in spills:
            file.write(reject_lines(spill))
