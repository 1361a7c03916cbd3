"""Discovery of source files: what files, folders and globs stand for; nothing is left out without a word.

Folders are searched to any depth, through links too. A file is known by the file itself: given twice, by links or by
other spellings, it is one, under a name that does not depend on what was given first.
"""

from __future__ import annotations

import glob
import os
import re
import stat
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatch
from importlib.util import find_spec
from pathlib import Path
from zlib import decompressobj
from zlib import error as ZlibError

from hexshards.conversion.sources import (
    HEAD_BYTES,
    GameSource,
    Input,
    NamedPatterns,
    Needs,
    Recognises,
    Source,
    formats,
)
from hexshards.errors import escaped, printable, without_secrets
from hexshards.storage.files import nearest_path, open_regular, real_path
from hexshards.units import counted

NAMED = 3
"""Files named in a sentence; of others it says how many."""

Formats = dict[str, Source | GameSource]

_KINDS = {
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


@dataclass(frozen=True, slots=True)
class Discovery:
    """What there is to convert."""

    inputs: tuple[Input, ...]
    """Each file once, sorted by path."""
    passed_over: tuple[str, ...]
    """Sentences on files in the folders that are not taken, and what to do about them."""


def discover(sources: Sequence[str | Path] | str | Path, *, shard_ranges: str = "") -> Discovery:
    """The files that files, folders and globs stand for; of each only those that ``shard_ranges`` number, if given.

    Raises FileNotFoundError for a source that stands for nothing and for a link to nothing, ValueError for a file of no
    known format and for what is no regular file, PermissionError for what may not be read.
    """
    known = formats()
    chosen, others = dict[Path, Input](), dict[Path, Path]()
    given = [sources] if isinstance(sources, (str, Path)) else sources
    for source, part in zip(given, _parts(shard_ranges, len(given)), strict=True):
        inputs = dict[Path, Input]()
        for path, named in _stood_for(str(source), known):
            real = real_path(path)
            if form := format_of_name(path.name, known, named=named):
                _check_readable(path)
                form = _recognised(path, known, named=named) or form
                file = Input(path.absolute(), form)
                inputs[real] = min(inputs[real], file, key=_rank) if real in inputs else file
            elif named:
                raise ValueError(f"{escaped(path)}: {escaped(_advice(path.name, known) or _unknown(known))}")
            else:
                others[real] = min(path, others.get(real, path))
        for real in _numbered(sorted(inputs), part, source):
            chosen[real] = min(chosen[real], inputs[real], key=_rank) if real in chosen else inputs[real]
    if not chosen:
        raise FileNotFoundError(f"nothing to convert: {escaped(_unknown(known, folder=True))}")
    _check_installed(chosen.values(), known)
    left = [others[real] for real in sorted(others.keys() - chosen.keys())]
    return Discovery(tuple(chosen[real] for real in sorted(chosen)), tuple(_sentences(left, known)))


def _parts(shard_ranges: str, sources: int) -> list[tuple[int, int] | None]:
    """The first and the last file of each source, None where it is all of them: one for each, or one for all."""
    texts = shard_ranges.replace(",", " ").split() or ["all"]
    parts = list[tuple[int, int] | None]()
    for text in texts:
        match = re.fullmatch(r"([0-9]{1,9})(?:-([0-9]{1,9}))?", text)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, -1)
        if last < first and text != "all":
            raise ValueError(
                f"shard_ranges: {printable(text)!r} is no range of files. Write it like 221-250, counted from 0, or all"
            )
        parts.append((first, last) if match else None)
    if len(parts) not in (1, sources):
        raise ValueError(
            f"shard_ranges: {counted(len(parts), 'range')} for {counted(sources, 'source')}: give one, or one for each"
        )
    return parts * (sources // len(parts))


def _numbered(files: Sequence[Path], part: tuple[int, int] | None, source: str | Path) -> Sequence[Path]:
    """The files of a part of a source, in the order of their names."""
    if part is None:
        return files
    first, last = part
    if first >= len(files):
        raise ValueError(
            f"{escaped(source)}: shard_ranges {first:,}-{last:,} begins behind the last of "
            f"{counted(len(files), 'file')}"
        )
    return files[first : last + 1]


def _check_installed(files: Iterable[Input], known: Formats) -> None:
    """Raise ValueError where the converter of a file needs what is not installed."""
    for file in files:
        converter = known[file.format]
        if isinstance(converter, Needs) and find_spec(converter.needs[0]) is None:
            module, brought = converter.needs
            raise ValueError(
                f"{escaped(file.path)} is {escaped(file.format)}, which needs {escaped(module)}. Run: "
                f"pip install '{escaped(brought)}'"
            )


def _rank(file: Input) -> tuple[bool, str, str]:
    """Of several names of a file the smallest counts: its own first, then those of links to it."""
    return file.path.name != real_path(file.path).name, file.path.name, str(file.path)


# from sources to files ----------------------------------------------------------------------------------------------


def _stood_for(source: str, known: Formats) -> Iterator[tuple[Path, bool]]:
    """All regular files that a source stands for, and whether each was named and not only found in a folder."""
    if os.path.lexists(source):
        places = [Path(source)]
    elif not (places := [Path(match) for match in sorted(glob.glob(source, recursive=True))]):
        hint = nearest_path(Path(source))
        raise FileNotFoundError(
            f"{escaped(without_secrets(source))}: no such file, and as a pattern it matches none{hint}"
        )
    for place in places:
        if not stat.S_ISDIR(_mode(place)):
            _check_regular(place)
            yield place, True
            continue
        files = list(_within(place, known))
        if place == Path(source) and not any(format_of_name(file.name, known, named=False) for file in files):
            told = "; ".join(_sentences(files, known))
            raise FileNotFoundError(
                f"{escaped(source)}: {escaped(_unknown(known, folder=True))}" + (f" ({escaped(told)})" if told else "")
            )
        yield from ((file, False) for file in files)


def _within(folder: Path, known: Formats) -> Iterator[Path]:
    """The regular files of a folder and of all folders in it; each folder once, however many links lead to it."""
    seen = set[Path]()
    waiting = [folder]
    while waiting:
        place = waiting.pop()
        if (real := real_path(place)) in seen:
            continue
        seen.add(real)
        try:
            inside = sorted(place.iterdir())
        except PermissionError:
            raise PermissionError(
                f"{escaped(place)}: this folder may not be read. Allow it, or name what to convert"
            ) from None
        for path in inside:
            mode = _mode(path)
            if stat.S_ISDIR(mode):
                waiting.append(path)
            elif stat.S_ISREG(mode) or format_of_name(path.name, known, named=False):
                _check_regular(path)
                yield path


def _mode(path: Path) -> int:
    """What kind of thing is at a path. Raises FileNotFoundError for a link that leads nowhere, PermissionError."""
    try:
        return path.stat().st_mode
    except PermissionError:
        raise PermissionError(
            f"{escaped(path)}: its folder may not be entered. Allow it, or name what to convert"
        ) from None
    except OSError as error:  # a link to itself is one that has too many levels
        if not path.is_symlink():
            raise
        target = printable(os.readlink(path), width=200)
        raise FileNotFoundError(
            f"{escaped(path)}: a link to {target} that leads nowhere. Mend it or remove it"
        ) from error


def _check_regular(path: Path) -> None:
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode):
        raise ValueError(
            f"{escaped(path)}: {escaped(kind_of(mode))}, not a regular file. Write what it holds into a file, "
            "and name that"
        )


def kind_of(mode: int) -> str:
    """What something is that is neither a file nor a folder, in words."""
    return _KINDS.get(stat.S_IFMT(mode), "something else")


def _check_readable(path: Path) -> None:
    if not os.access(path, os.R_OK, effective_ids=os.access in os.supports_effective_ids):
        raise PermissionError(f"{escaped(path)}: this file may not be read. Allow it, or leave it out")


# names --------------------------------------------------------------------------------------------------------------


def format_of_name(name: str, known: Formats, *, named: bool = False) -> str | None:
    """The format that a file goes by; ``named``: and was not only found in a folder."""
    for form, converter in known.items():
        if any(fnmatch(name, pattern) for pattern in _patterns(converter, named=named)):
            return form
    return None


def _recognised(path: Path, known: Formats, *, named: bool) -> str | None:
    """Of several formats whose files go by a name, the one that knows the file by how it begins, or the common one."""
    forms = [form for form in known if format_of_name(path.name, {form: known[form]}, named=named)]
    can = {form: converter for form in forms if isinstance(converter := known[form], Recognises)}
    if not can or len(forms) == 1:
        return None
    with open_regular(path) as file:
        head = file.read(HEAD_BYTES)
    if head.startswith(b"\x1f\x8b"):
        with suppress(ZlibError):  # damage is found, and told, where the file is read
            head = decompressobj(wbits=31).decompress(head, HEAD_BYTES)
    common = next((form for form in forms if form not in can), None)
    return next((form for form, converter in can.items() if converter.recognises(head)), common)


def _patterns(converter: Source | GameSource, *, named: bool) -> tuple[str, ...]:
    return (*converter.patterns, *(converter.named_patterns if named and isinstance(converter, NamedPatterns) else ()))


def _unknown(known: Formats, *, folder: bool = False) -> str:
    patterns = ", ".join(sorted({pattern for form in known.values() for pattern in _patterns(form, named=not folder)}))
    if folder:
        return f"no file in this folder is named like {patterns}"
    return f"not named like any known format ({patterns})"


def _advice(name: str, known: Formats) -> str:
    """What makes a file one of a known format, judged by its name; empty where nothing does."""
    if format_of_name(name, known, named=True):
        return "name it, or a glob of such files, if it holds games"
    lower = name.lower()
    if lower != name and format_of_name(lower, known, named=True):
        return f"endings are written in small letters: rename it to {printable(_small_ending(name, known))}"
    if format_of_name(lower + ".gz", known, named=False):
        return "it is not compressed: run gzip on it" + (
            ", and write its ending in small letters" if lower != name else ""
        )
    return ""


def _small_ending(name: str, known: Formats) -> str:
    """The name with the shortest part of its end in small letters that makes it one of a known format."""
    ends = (name[:at] + name[at:].lower() for at in range(len(name) - 1, -1, -1))
    return next(end for end in ends if format_of_name(end, known, named=True))


def _sentences(paths: Sequence[Path], known: Formats) -> Iterator[str]:
    """A sentence for all files that want the same advice, and one for those that nothing can be done about."""
    advised, rest = dict[tuple[str, str], list[Path]](), Counter[str]()
    for path in paths:
        ending = path.suffix.lower() if path.suffix != ".gz" else "".join(path.suffixes[-2:]).lower()
        if advice := _advice(path.name, known):
            advised.setdefault((ending, advice.split(":")[0]), []).append(path)
        else:
            rest[ending or "without ending"] += 1
    for group in advised.values():
        names = ", ".join(map(escaped, group[:NAMED]))
        more = f" and {len(group) - NAMED:,} more" if len(group) > NAMED else ""
        yield f"passed over {names}{more}: {_advice(group[0].name, known)}"
    if rest:
        listed = ", ".join(f"{printable(ending)} {count:,}" for ending, count in rest.most_common(5))
        listed += ", ..." if len(rest) > 5 else ""
        files = counted(rest.total(), "file")
        yield f"passed over {files} of no known format ({listed})"
