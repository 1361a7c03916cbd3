from __future__ import annotations

import gzip
import hashlib
import json
import os
import shutil
import subprocess
import sys
from itertools import chain

import numpy as np
import pytest
from helpers.cli import call
from helpers.small_data import CUT, columns_of, files_of, processed

from hexshards.cli.conversion_view import estimate_text
from hexshards.conversion.convert import convert
from hexshards.conversion.duplicates.count_games import distinct_games, note_games
from hexshards.conversion.estimate import estimate
from hexshards.conversion.memory import PROCESS_BYTES, Budget, decompressed_bytes
from hexshards.conversion.random_files import trmph_line, write
from hexshards.conversion.spill_sources import MAX_SPILLS
from hexshards.dataset.index import read_index
from hexshards.dataset.verify import verify
from hexshards.game.random_games import play
from hexshards.units import parse_bytes, show_bytes

OPTIONS = [part for name, value in CUT.items() for part in (f"--{name.replace('_', '-')}", str(value))]


def command(*arguments):
    return [sys.executable, "-m", "hexshards", "convert", *map(str, arguments)]


def run(*arguments, **options):
    return subprocess.run(command(*arguments), capture_output=True, text=True, timeout=120, **options)


# the shuffle --------------------------------------------------------------------------------------------------------


def excess(counts, expected):
    """How many standard deviations chi squared lies above its mean, were the counts drawn as expected."""
    chi2, freedom = ((counts - expected) ** 2 / expected).sum(), counts.size - 1
    return (chi2 - freedom) / (2 * freedom) ** 0.5


@pytest.fixture(scope="module")
def big(tmp_path_factory):
    """60,000 positions of 20 files, and the place in the source of each, in the order of the dataset."""
    folder = tmp_path_factory.mktemp("big")
    files = write(folder / "in", games=2000, side=6, games_per_file=100, format="trmph")
    convert(files, out=folder / "data", val_fraction=0, shard_positions=8192, block_positions=512, keep_duplicates=True)
    columns = columns_of(folder / "data", "train")
    return np.lexsort([columns["ply"], columns["game"], columns["source"]]).argsort(), columns


def test_every_place_of_the_source_is_equally_likely_at_every_place_of_the_dataset(big):
    was, _ = big
    total = len(was)
    places = np.arange(total) * 40 // total
    counts = np.zeros((40, 40))
    np.add.at(counts, (was * 40 // total, places), 1)
    assert abs(excess(counts, total / 1600)) < 4


def test_what_follows_a_position_says_nothing_about_where_it_came_from(big):
    was, columns = big
    total = len(was)
    counts = np.zeros((20, 20))
    np.add.at(counts, (was[:-1] * 20 // total, was[1:] * 20 // total), 1)
    assert abs(excess(counts, (total - 1) / 400)) < 4
    # neighbours of one game come by chance alone: about 30 positions of 60,000 share a game
    pairs = (columns["source"] * 1000 + columns["game"]).astype(np.int64)
    assert (pairs[1:] == pairs[:-1]).sum() < 80


def test_over_many_seeds_each_position_comes_to_every_place(tmp_path):
    (file,) = processed(tmp_path / "in", games=2)
    counts = None
    for seed in range(100):
        convert(file, out=tmp_path / "out", val_fraction=0, seed=seed)
        columns = columns_of(tmp_path / "out", "train")
        row = columns["game"] * 100 + columns["ply"]
        place = np.searchsorted(np.sort(row), row)
        counts = np.zeros((len(row), 5)) if counts is None else counts
        counts[place, np.arange(len(row)) * 5 // len(row)] += 1
        shutil.rmtree(tmp_path / "out")
    expected = np.bincount(np.arange(len(counts)) * 5 // len(counts)) * 100 / len(counts)
    assert abs(excess(counts, np.broadcast_to(expected, counts.shape))) < 4


# memory -------------------------------------------------------------------------------------------------------------

# ru_maxrss begins at what the process held that started this one: Linux keeps it across exec, VmHWM it does not
PEAK = """
import os, re, resource, sys
from hexshards.conversion.convert import convert
convert(sys.argv[1], out=sys.argv[2], memory=sys.argv[3], shard_positions=65536, keep_duplicates=True)
if os.path.exists("/proc/self/status"):
    print(re.search("VmHWM:[^0-9]*([0-9]+) kB", open("/proc/self/status").read())[1])
else:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def peak_bytes(files, out, memory):
    ended = subprocess.run(
        [sys.executable, "-c", PEAK, files, out, memory], capture_output=True, text=True, timeout=120
    )
    assert ended.returncode == 0, ended.stderr
    return int(ended.stdout) * (1 if sys.platform == "darwin" else 1024)


def test_ten_times_the_data_takes_the_same_memory_and_no_more_than_allowed(tmp_path):
    for name, games in (("few", 600), ("many", 6_000)):
        write(tmp_path / name, games=games, games_per_file=300, format="trmph")
    few, many = (peak_bytes(tmp_path / name, tmp_path / f"{name}-out", "128MiB") for name in ("few", "many"))
    # held at once, 900,000 positions of 83 bytes would be 75 MB
    assert read_index(tmp_path / "many-out").splits["train"].positions > 850_000
    assert many < few + (16 << 20)
    assert many < parse_bytes("128MiB")


def test_memory_decides_how_many_work_at_once():
    budget = Budget(memory_bytes=PROCESS_BYTES * 5, workers=8)
    assert [budget.at_once(need) for need in (0, PROCESS_BYTES, 3 * PROCESS_BYTES, 100 * PROCESS_BYTES)] == [4, 2, 1, 1]
    assert Budget(memory_bytes=PROCESS_BYTES * 100, workers=2).at_once(0) == 2
    assert (
        budget.notice(100 * PROCESS_BYTES, "reading")
        == "reading takes about 6.312 GiB, more than the 320 MiB of --memory"
    )
    assert "lets 2 of 8 workers run" in budget.notice(PROCESS_BYTES, "reading")
    assert Budget(memory_bytes=PROCESS_BYTES * 100, workers=2).notice(0, "reading") == ""


def test_a_file_too_large_for_the_memory_is_read_alone_and_said(tmp_path):
    files = processed(tmp_path / "in", games=40)
    report = convert(files, out=tmp_path / "out", memory="64MiB", workers=2, **CUT)
    assert any("more than the 64 MiB of --memory" in note for note in report.notes)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("512MiB", 512 << 20),
        ("1GiB", 1 << 30),
        ("1.5 GiB", 3 << 29),
        ("1GB", 10**9),
        ("1e9", 10**9),
        ("4096", 4096),
        (77, 77),
    ],
)
def test_sizes_are_read_as_people_write_them(text, count):
    assert parse_bytes(text) == count


@pytest.mark.parametrize("text", ["", "lots", "-1GiB", "0", "GiB"])
def test_other_sizes_are_refused(text, tmp_path):
    with pytest.raises(ValueError, match="memory must be a size like 512MiB"):
        convert(tmp_path, out=tmp_path / "out", memory=text)


def test_sizes_are_shown_in_the_largest_unit_that_fits():
    assert [show_bytes(n) for n in (0, 1023, 1024, 1536 << 20, 5 << 40)] == [
        "0 B",
        "1023 B",
        "1 KiB",
        "1.5 GiB",
        "5 TiB",
    ]


def test_a_gzip_file_states_its_decompressed_size(tmp_path):
    (file,) = processed(tmp_path / "in", games=2)
    assert decompressed_bytes(file) == len(gzip.decompress(file.read_bytes()))
    (tmp_path / "tiny.pkl.gz").write_bytes(b"x")
    assert decompressed_bytes(tmp_path / "tiny.pkl.gz") == 1


# files --------------------------------------------------------------------------------------------------------------


def test_thousands_of_files_need_few_temporary_ones_and_fewer_open_ones(tmp_path):
    files = MAX_SPILLS + 276
    (tmp_path / "in").mkdir()
    for number, game in enumerate(play(files, side=3)):
        # the number of the game is in the file's name, so that no two games are the same
        (tmp_path / "in" / f"game{number:04d}.trmph").write_text(f"{trmph_line(game)}\n")
    scratch, opened = 0, 0

    def watch(_):
        nonlocal scratch, opened
        scratch = max(scratch, len(os.listdir(tmp_path / "out" / ".partial")))
        opened = max(opened, len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0)

    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    options = {"shard_positions": 4096, "block_positions": 512, "val_fraction": 0, "keep_duplicates": True}
    report = convert(tmp_path / "in", out=tmp_path / "out", progress=watch, **options)
    assert len(report.index.inputs) + len(report.repeated) == files
    # four files to a group and its rejects, and at most MAX_SPILLS / 2 + 1 groups; alone they would be 3 each
    assert scratch < 2.5 * MAX_SPILLS < 3 * files
    assert opened < before + 20
    # files read in groups lie where each would have lain alone
    names, keys = [], []
    for file in report.index.inputs:
        data = (tmp_path / "in" / file.name).read_bytes()
        words = np.frombuffer(hashlib.sha256(data).digest(), dtype=">u4").tolist()
        keys.append(np.random.Philox(np.random.SeedSequence(0, spawn_key=(0, *words))).random_raw(file.positions))
        names.append([file.name.removesuffix(".trmph")] * file.positions)
    expected = np.array([*chain(*names)])[np.argsort(np.concatenate(keys))]
    columns = columns_of(tmp_path / "out", "train")
    assert np.array(report.index.sources)[columns["source"]].tolist() == expected.tolist()


def test_games_are_counted_range_by_range(tmp_path):
    keys = np.random.Philox(1).random_raw(30_000)
    note_games(tmp_path, "a", [keys[:15_000], keys[:1]])
    note_games(tmp_path, "b", [keys[10_000:]])
    note_games(tmp_path, "c", [np.array([0, 2**64 - 1], dtype=np.uint64)])
    for together in (100, 34_999, 10**6):
        assert distinct_games(tmp_path, ["a", "b", "c"], together=together) == 30_002


# the disk -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sources")
    processed(folder, games=120, side=9, games_per_file=20)
    return folder


def test_a_dry_run_tells_what_comes_and_writes_nothing(sources, tmp_path):
    out = tmp_path / "not" / "there"
    ended = call("convert", sources, "--out", out, "--dry-run", "--workers", 1)
    assert not any(tmp_path.iterdir())
    for words in ("read 6 files", "positions", "2 shards", "of scratch", "are free", "memory:", "time: about"):
        assert words in ended.stdout
    expected = estimate(sources, out=out)
    assert estimate_text(expected).splitlines()[0] == ended.stdout.splitlines()[0]
    scratch = 0

    def watch(_):
        nonlocal scratch
        scratch = max(scratch, sum(path.stat().st_size for path in (tmp_path / "out" / ".partial").glob("*.npy")))

    report = convert(sources, out=tmp_path / "out", progress=watch)
    assert expected.files == 6
    assert 0.9 < expected.positions / report.positions < 1.1
    assert 0.7 < expected.dataset_bytes / report.shard_bytes < 1.3
    assert 0.9 * scratch < expected.scratch_bytes < 1.5 * scratch
    assert expected.shards == sum(len(split.shards) for split in report.index.splits.values()) == 2


def test_a_dry_run_counts_no_more_files_and_shards_at_once_than_there_are(sources, tmp_path):
    one = min(sources.iterdir())
    for files, options, said in (
        ([one], {"val_fraction": 0}, "1 file read and 1 shard written at once"),
        ([one], {"test_fraction": 0.2}, "1 file read and 3 shards written at once"),
        (sources, {"shard_positions": 2048, "block_positions": 512}, "4 files read and 4 shards written at once"),
    ):
        expected = estimate(files, out=tmp_path / "data", workers=4, **options)
        assert said in estimate_text(expected)
    lines = estimate_text(estimate([one], out=tmp_path / "data")).splitlines()
    assert lines[-1] == f"by reading {one}"
    assert estimate_text(expected).splitlines()[-1].endswith("; 5 other files are taken to hold as much in each byte")


def test_a_dry_run_of_an_addition_leaves_out_what_is_there(sources, tmp_path):
    files = sorted(sources.iterdir())
    convert(files[:2], out=tmp_path / "data", **CUT)
    before = files_of(tmp_path / "data")
    ended = call("convert", *files, "--out", tmp_path / "data", "--append", "--dry-run", "--json")
    told = json.loads(ended.stdout)
    assert (told["files"], len(told["already"])) == (4, 2)
    assert files_of(tmp_path / "data") == before


def in_a_small_disk(script, folder, *, size):
    """Run a shell script in a namespace of its own where ``folder`` is a small disk; None where that can't be."""
    folder.mkdir()
    whole = f"mount -t tmpfs -o size={size} none '{folder}' && touch '{folder}/.mounted' && ( {script} )"
    for way in (["unshare", "-m"], ["unshare", "-rm"]):
        if shutil.which("unshare") and subprocess.run([*way, "true"], capture_output=True).returncode == 0:
            check = subprocess.run(
                [*way, "sh", "-c", f"mount -t tmpfs none '{folder}'"], capture_output=True, text=True, timeout=30
            )
            if check.returncode == 0:
                return subprocess.run([*way, "sh", "-c", whole], capture_output=True, text=True, timeout=120)
    return None


def quoted(parts):
    return " ".join(f"'{part}'" for part in parts)


def test_a_full_disk_is_refused_before_anything_is_read(sources, tmp_path):
    disk = tmp_path / "disk"
    ended = in_a_small_disk(quoted(command(sources, "--out", disk / "data")), disk, size="64k")
    if ended is None:
        pytest.skip("no small disk can be mounted here, so this is NOT CHECKED: a full disk is refused early")
    assert ended.returncode == 1
    assert "are free" in ended.stderr
    assert "Make room and run the same command again" in ended.stderr


def test_a_disk_that_fills_up_meanwhile_ends_cleanly_and_resumes(sources, tmp_path):
    convert(sources, out=tmp_path / "whole", **CUT)
    disk, ballast = tmp_path / "disk", tmp_path / "disk" / "ballast"
    script = f"""
    {quoted([sys.executable])} -c "
from hexshards.conversion.convert import convert
def fill(now):
    if now.files_done == 2:
        with open('{ballast}', 'wb') as file:
            try:
                while True: file.write(bytes(4096)); file.flush()
            except OSError: pass
try: convert('{sources}', out='{disk}/data', val_fraction=0.2, shard_positions=96, block_positions=16, progress=fill)
except OSError as error: print('TOLD', error)
"
    ls {disk}/data/.partial/*.spill.json | wc -l
    rm -f {ballast}
    {quoted(command(sources, "--out", disk / "data", *OPTIONS))} && cp -r {disk}/data {tmp_path}/resumed
    """
    ended = in_a_small_disk(script, disk, size="24m")
    if ended is None:
        pytest.skip("no small disk can be mounted here, so this is NOT CHECKED: a disk that fills up is survived")
    assert ended.returncode == 0, ended.stderr
    assert "TOLD" in ended.stdout, ended.stdout + ended.stderr
    assert "the disk is full" in ended.stdout
    assert files_of(tmp_path / "resumed") == files_of(tmp_path / "whole")


LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
from hexshards.__main__ import main
sys.argv = ["hexshards", *sys.argv[1:]]
main()
"""


def test_a_file_that_cannot_be_written_ends_the_job_with_a_sentence_and_the_next_try_goes_on(sources, tmp_path):
    convert(sources, out=tmp_path / "whole", **CUT)
    arguments = ["convert", str(sources), "--out", str(tmp_path / "out"), *OPTIONS, "--workers", "1"]
    ended = subprocess.run([sys.executable, "-c", LIMITED, *arguments], capture_output=True, text=True, timeout=60)
    assert ended.returncode == 1
    assert "Traceback" not in ended.stderr
    assert "the disk is full" in ended.stderr
    assert not list(tmp_path.glob("out/.partial/*.partial"))
    assert run(*arguments[1:]).returncode == 0
    assert files_of(tmp_path / "out") == files_of(tmp_path / "whole")


# the command line ---------------------------------------------------------------------------------------------------


def test_all_options_go_together_with_json(sources, tmp_path):
    files = sorted(sources.iterdir())
    options = ["--memory", "512MiB", "--dedupe", "symmetric", "--bake-symmetries", "--json"]
    first = run(*files[:3], "--out", tmp_path / "data", *options, "--workers", 2)
    assert first.returncode == 0, first.stderr
    told = json.loads(first.stdout)
    assert told["merged"] > 0
    again = call("convert", *files, "--out", tmp_path / "data", "--append", "--json", "--workers", 1)
    assert len(json.loads(again.stdout)["already"]) == 3
    assert verify(tmp_path / "data").problems == ()
    assert read_index(tmp_path / "data").options["dedupe"] == "symmetric"


@pytest.mark.parametrize(("option", "value"), [("--memory", "lots"), ("--dedupe", "some")])
def test_options_that_make_no_sense_are_refused(sources, tmp_path, option, value):
    call("convert", sources, "--out", tmp_path / "out", option, value, code=2)
    assert not (tmp_path / "out").exists()
