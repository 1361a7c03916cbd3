"""Publish a dataset: its shards and, for people and catalogues, a card, a preview and metadata, the index last.

What was cut off goes on when it is called again. A card that somebody edited is theirs, and stays. Where an earlier
state of the same dataset is, only what came since is sent, and what its readers may still read stays.
"""

from __future__ import annotations

import datetime
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Unpack
from urllib.parse import urlsplit

from hexshards.arguments import LocalPath, checked
from hexshards.dataset.earlier import extends, listed
from hexshards.dataset.index import NAME as INDEX
from hexshards.dataset.index import Index, read_index
from hexshards.dataset.upload import deliver, noted, noted_shards, published
from hexshards.errors import escaped, printable
from hexshards.options import takes
from hexshards.publishing import card, croissant
from hexshards.publishing.options import PublishOptions, PublishSpec
from hexshards.publishing.preview import parquet_of, sample_of, table_of, with_arrow
from hexshards.storage.files import Folder, free_bytes, publishing, real_path
from hexshards.storage.remote import shown
from hexshards.storage.target import FolderTarget, Target, target_of
from hexshards.units import counted, show_bytes

UNLICENSED = "no license was given: publishing needs one, and the files that name it count as new here"


@dataclass(frozen=True, slots=True, kw_only=True)
class Publication:
    """What was published, or would be."""

    target: str
    fingerprint: str
    files: Mapping[str, int]
    """Bytes of each file of it."""
    sent: tuple[str, ...]
    """Those that were not there, in the order in which they are sent."""
    previewed: Mapping[str, int]
    """Rows of each split's preview."""
    notes: tuple[str, ...]
    """What to know, in sentences."""

    @property
    def sent_bytes(self) -> int:
        """Bytes of what was not there."""
        return sum(self.files[name] for name in self.sent)


@checked
@takes(PublishSpec)
def publish(
    dataset: LocalPath,
    target: str | Path,
    *,
    dry_run: bool = False,
    progress: Callable[[int, int], None] | None = None,
    **options: Unpack[PublishOptions],
) -> Publication:
    """Publish the dataset in a folder to another folder, or to an s3, gs or hf URL.

    The options are those of PublishSpec. ``progress`` is told files done and files in all. With ``dry_run`` nothing is
    written, and no license needed. Memory: a block of positions, and the preview. Raises ValueError for a target that
    can't be one or where pyarrow is missing, FileNotFoundError where there is no dataset, FileExistsError where the
    target holds something else than an earlier state of it, and DataError where a shard is not what the index says or
    a file does not arrive.
    """
    spec = PublishSpec(**options)
    if not dry_run:
        spec.check_given()
    with_arrow()
    folder, index, out = Path(dataset).absolute(), read_index(dataset), target_of(target)
    _check_place(out, folder)
    there = _published(out, index)
    with tempfile.TemporaryDirectory() as made:
        # files may be added to the dataset meanwhile
        index = _kept(Path(made), folder)
        files, notes, rows = _written(Path(made), folder, index, out, spec)
        sizes = {name: path.stat().st_size for name, path in files.items()} | {
            INDEX: (Path(made) / INDEX).stat().st_size
        }
        notes += [] if spec.license else [UNLICENSED]
        notes += _stays(out, there, index)
        missing = _missing(out, there, index, files, Path(made))
        if isinstance(out, FolderTarget):
            _check_room(out, sum(sizes[name] for name in missing))
        if missing and not dry_run:
            waiting = {name: path for name, path in files.items() if name in missing}
            with out.held():
                deliver(waiting, out, index=Path(made), sha256=_digests(index), tell=progress or (lambda *_: None))
    return Publication(
        target=str(out),
        fingerprint=index.fingerprint,
        files=sizes,
        sent=tuple(missing),
        previewed=rows,
        notes=tuple(notes),
    )


def _kept(made: Path, folder: Path) -> Index:
    """The index, as it is now, in a folder of its own."""
    shutil.copyfile(folder / INDEX, made / INDEX)
    return read_index(made)


def _written(
    made: Path, folder: Path, index: Index, out: Target, spec: PublishSpec
) -> tuple[dict[str, Path], list[str], dict[str, int]]:
    """The files to publish by their names, those that are not the dataset's own written into a folder; and notes."""
    home, place = Folder(folder), str(out) if not isinstance(out, FolderTarget) else out.path.name
    tables = {name: table_of(sample_of(home, index, name, count=spec.preview), index, name) for name in index.splits}
    rows = {split: len(table) for split, table in tables.items()}
    described = card.Card(index=index, spec=spec, place=place, previewed=rows)
    previews = {split: parquet_of(table) for split, table in tables.items()}
    texts = {card.preview_name(split): data for split, data in previews.items()}
    notes = []
    if not place.startswith("hf://"):
        day = croissant.day_of(out.read(croissant.NAME)) or datetime.datetime.now(datetime.UTC).date().isoformat()
        texts[croissant.NAME] = croissant.croissant_of(described, previews, published=day)
        if lacks := croissant.lacking(texts[croissant.NAME]):
            options = " and ".join("--homepage" if name == "url" else f"--{name}" for name in lacks)
            notes.append(f"{croissant.NAME} lacks {' and '.join(lacks)}, which its format requires: give {options}")
    there = out.read(card.NAME)
    if there is None or card.untouched(there.decode(errors="replace")):
        texts[card.NAME] = card.card_of(described).encode()
    else:
        notes.append(f"{card.NAME} there is not as hexshards wrote it, and stays. Remove it to have it written anew")
    shards = {shard.name: folder / shard.name for split in index.splits.values() for shard in split.shards}
    for name, data in texts.items():
        (made / name).parent.mkdir(exist_ok=True)
        with publishing(made / name, durable=False) as file:  # which names the file, should the disk be full
            file.write(data)
    return {**shards, **{name: made / name for name in texts}}, notes, rows


def _missing(out: Target, there: Index | None, index: Index, files: Mapping[str, Path], made: Path) -> list[str]:
    """Names of the files that are not there yet, the index last; none where all are."""
    digests, known = _digests(index), noted(out) == index.fingerprint
    before = noted_shards(out) | (_digests(there) if there else {})
    missing = []
    for name, path in files.items():
        same = out.size(name) == path.stat().st_size
        if path.is_relative_to(made):
            same = same and out.read(name) == path.read_bytes()
        else:
            same = same and (known or before.get(name) == digests[name])
        if not same:
            missing.append(name)
    return [*missing, INDEX] if missing or not there or there.fingerprint != index.fingerprint else []


def _stays(out: Target, there: Index | None, index: Index) -> list[str]:
    """What is said of shards that the dataset no longer lists, and that whoever reads its earlier state still reads."""
    merged = sorted(listed(there) - listed(index))
    if not there or not merged:
        return []
    size = sum(shard.size_bytes for split in there.splits.values() for shard in split.shards if shard.name in merged)
    what = f"{counted(len(merged), 'shard')} of the earlier state ({escaped(merged[0])}"
    what += f" to {escaped(merged[-1])}" if len(merged) > 1 else ""
    return [f"{what}, {show_bytes(size)}) stay for whoever reads it; remove them once nobody does"]


def _digests(index: Index) -> dict[str, str]:
    return {shard.name: shard.sha256 for split in index.splits.values() for shard in split.shards}


# what is refused ----------------------------------------------------------------------------------------------------


def _check_place(out: Target, folder: Path) -> None:
    """Raise ValueError for a place that no dataset can be published to."""
    if isinstance(out, FolderTarget):
        there, here = real_path(out.path), real_path(folder)
        if there.is_relative_to(here):
            where = "is the dataset itself" if there == here else "lies inside the dataset"
            raise ValueError(f"{escaped(out)} {where}. Choose another folder to publish to")
        if out.path.exists() and not out.path.is_dir():
            raise FileExistsError(f"{escaped(out)} is a file. Choose another folder to publish to")
    elif str(out).startswith("hf://"):
        kind, *rest = urlsplit(str(out)).netloc, *urlsplit(str(out)).path.strip("/").split("/")
        if kind != "datasets" or len(rest) != 2:
            rule = "the hub reads the card at the top of a repository of datasets: give hf://datasets/OWNER/NAME"
            raise ValueError(f"{shown(str(out))}: {rule}")


def _published(out: Target, index: Index) -> Index | None:
    """The dataset, where it is there already. Raises FileExistsError where something else is."""
    there = published(out.home)
    if there and there.fingerprint != index.fingerprint and not _grown_from(index, there):
        what = "a later state of this dataset" if extends(there, index) else "another dataset"
        fingerprint = printable(there.fingerprint, width=12)
        raise FileExistsError(f"{escaped(out)} holds {what} ({fingerprint}). Choose another target")
    if there or not isinstance(out, FolderTarget) or not out.path.exists():
        return there
    begun = noted(out)
    if begun and begun != index.fingerprint and not _begun_from(index, noted_shards(out)):
        raise FileExistsError(
            f"{escaped(out)} holds a part of another dataset, whose publication was cut off. Finish that, or remove it"
        )
    if not begun and (others := [path.name for path in out.path.iterdir() if path.suffix in (".tar", ".parquet")]):
        raise FileExistsError(f"{escaped(out)} holds {escaped(min(others))}, and no dataset. Choose another folder")
    return None


def _grown_from(index: Index, there: Index) -> bool:
    """Whether a dataset is what is there, grown, with no other shard under a name that is taken."""
    now, before = _digests(index), _digests(there)
    return extends(index, there) and all(now[name] == before[name] for name in now.keys() & before)


def _begun_from(index: Index, shards: Mapping[str, str]) -> bool:
    """Whether all shards of what was cut off are of this dataset, which grew meanwhile."""
    own = set(_digests(index).values()).union(*(index.written(split) for split in index.splits))
    return bool(shards) and own.issuperset(shards.values())


def _check_room(out: FolderTarget, needed: int) -> None:
    """Raise OSError where the disk lacks room."""
    if needed > (free := free_bytes(out.path)):
        raise OSError(f"{escaped(out)}: {show_bytes(needed)} are to be written, and {show_bytes(free)} are free there")
