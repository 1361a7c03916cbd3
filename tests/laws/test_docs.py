import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from helpers import small_hex_ai, warm

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"


def blocks_of(page):
    return re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


BLOCKS = blocks_of(README)
IN_DOCS = [
    pytest.param(language, text, id=f"{page.stem}-{number}")
    for page in sorted((ROOT / "docs").glob("*.md"))
    if page.stem not in ("tour", "hex_ai")
    for number, (language, text) in enumerate(blocks_of(page))
    if language in ("python", "console")
]
"""What the pages of docs/ show to be run here; ``sh`` is for other machines, such as a cluster's."""
HEX_AI = [block for block in blocks_of(ROOT / "docs" / "hex_ai.md") if block[0]]
TOUR = blocks_of(ROOT / "docs" / "tour.md")

# The blocks of README and of the tour run in one folder each, as a reader would follow them; only what needs a checkout
# is not run from here.
ELSEWHERE = {"make demo", "make test"}
FIRST = (
    "hexshards synth --games 300 --side 9 --out processed",
    "hexshards convert processed --out dataset --val-fraction 0.1",
)
"""What a reader of docs/ has done before."""

PAGES = sorted((ROOT / "docs").glob("*.md"))
LINKED = [README, *PAGES, ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", ROOT / "CHANGELOG.md"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A reader of README has files of his own."""
    folder = tmp_path_factory.mktemp("readme")
    assert run(["hexshards", "synth", "--games", "60", "--side", "7", "--out", "processed"], folder).returncode == 0
    return folder


@pytest.fixture(scope="module")
def touring(tmp_path_factory):
    return tmp_path_factory.mktemp("tour")


@pytest.fixture(scope="module")
def moving(tmp_path_factory):
    """One who moves has hex_ai, shuffled files and a checkpoint."""
    folder = tmp_path_factory.mktemp("moving")
    package, old = folder / "hex_ai", folder / "checkpoints" / "old"
    package.mkdir()
    old.mkdir(parents=True)
    (package / "__init__.py").touch()
    shutil.copy(small_hex_ai.__file__, package / "models.py")
    (package / "training.py").write_text("from hex_ai.models import Trainer as Trainer\n")
    trainer = small_hex_ai.Trainer(small_hex_ai.create_model("resnet18"), None)
    losses = small_hex_ai.aged(["total_loss"])
    trainer.save_checkpoint(old / "epoch3_mini4.pt.gz", losses, losses)
    made = run(["hexshards", "synth", "--games", "40", "--side", "13", "--out", "data/processed/shuffled"], folder)
    assert made.returncode == 0
    return folder


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("docs")
    for command in FIRST:
        assert run_warm(command.split(), folder).returncode == 0
    return folder


BINARIES = Path(sys.executable).parent
"""Where an installed hexshards is."""


def run(command, folder):
    env = {**os.environ, "PATH": f"{BINARIES}{os.pathsep}{os.environ['PATH']}"}
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=300)


def run_warm(command, folder):
    program = str(BINARIES / "hexshards") if command[0] == "hexshards" else command[0]
    return warm.run([program, *command[1:]], cwd=folder)


def commands_in(text):
    lines = (line.removeprefix("$ ").split(" #")[0].strip() for line in text.splitlines())
    return [line for line in lines if line]


def run_block(language, text, folder, *, run=run_warm):
    commands = [[sys.executable, "-c", text]] if language == "python" else map(shlex.split, commands_in(text))
    for command in commands:
        result = run(command, folder)
        assert result.returncode == 0, f"{command}\n{result.stderr}"


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_every_block_of_the_readme_runs(number, folder):
    language, text = BLOCKS[number]
    if language:
        run_block(language, text, folder, run=run)
    else:
        assert {line for line in commands_in(text) if not line.startswith("pip install")} <= ELSEWHERE


@pytest.mark.parametrize("number", range(len(TOUR)))
def test_every_block_of_the_tour_runs(number, touring):
    run_block(*TOUR[number], touring)


@pytest.mark.parametrize(("language", "text"), IN_DOCS)
def test_every_block_of_the_docs_runs(language, text, prepared):
    run_block(language, text, prepared)


@pytest.mark.parametrize("number", range(len(HEX_AI)))
def test_every_block_of_the_move_from_hex_ai_runs(number, moving):
    run_block(*HEX_AI[number], moving)


def test_after_the_move_hex_ais_programs_find_what_they_look_for(moving):
    checkpoints = moving / "checkpoints"
    written = [path.relative_to(checkpoints).as_posix() for path in sorted(checkpoints.rglob("epoch*.pt.gz"))]
    assert written == [
        "as-it-is/epoch1_mini1.pt.gz",
        "as-it-is/epoch1_mini2.pt.gz",
        "exported/epoch1_mini1.pt.gz",
        "first/epoch1_mini1.pt.gz",
        "first/epoch1_mini2.pt.gz",
        "old/epoch3_mini4.pt.gz",
    ]
    assert all(small_hex_ai.loaded_network(checkpoints / path) for path in written)
    (books,) = (checkpoints / "bookkeeping").glob("training_metrics_*.csv")
    (curve,) = small_hex_ai.read_books(books).values()
    assert [row["mini"] for row in curve] == [1, 2]


def test_readers_of_the_docs_have_done_what_the_tour_says():
    assert all(f"$ {command}" in (ROOT / "docs" / "tour.md").read_text(encoding="utf-8") for command in FIRST)


def test_what_the_readme_does_not_run_is_what_ci_and_the_workflow_run():
    workflow = (ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8")
    ci = (ROOT / ".ci/run").read_text(encoding="utf-8")
    assert "run: bash .ci/run" in workflow
    assert all(f"run: {command}" in workflow or f"\n{command}\n" in ci for command in ELSEWHERE)


@pytest.mark.parametrize("page", [README, *PAGES], ids=lambda page: page.stem)
def test_commands_and_extras_that_a_page_names_exist(page):
    from typer.main import get_command

    from hexshards.cli.app import app

    text = page.read_text(encoding="utf-8")
    extras = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"])
    assert set(re.findall(r"`hexshards ([a-z]+)\b", text)) <= set(get_command(app).commands)
    named = re.findall(r"pip install '[a-z.]+\[([\w,]+)\]'", text)
    listed = re.findall(r"other extras: ([a-z0-9 ]+)$", text, re.MULTILINE)
    assert {extra for names in named for extra in names.split(",")} | {
        e for each in listed for e in each.split()
    } <= extras


def test_the_readme_is_read_in_three_minutes():
    assert len(README.read_text(encoding="utf-8").split()) <= 620


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_page_begins_with_who_needs_it_and_stands_in_index_and_site(page):
    title, _, who = page.read_text(encoding="utf-8").splitlines()[:3]
    assert title.startswith("# ") and who.startswith(("*You need this page ", "For "))
    assert re.search(rf"^ +- .*{page.name}$|^  - {page.name}$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)
    assert page.stem == "index" or f"({page.name})" in (ROOT / "docs" / "index.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("page", LINKED, ids=lambda page: page.stem)
def test_every_link_leads_somewhere(page):
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    links = re.findall(r"\]\((?!https?://)([^)#]*)(?:#([^)]*))?\)", text)
    for path, anchor in links:
        target = page.parent / path if path else page
        assert target.exists(), path
        assert not anchor or anchor in anchors_of(target), f"{path}#{anchor}"


def test_every_file_and_folder_that_contributing_names_is_there():
    named = re.findall(r"`([\w./]+(?:\.py|/))`", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"))
    package = ROOT / "hexshards"
    places = [ROOT, ROOT / "tests", package, *(path.parent for path in package.rglob("__init__.py"))]
    assert len(named) > 40
    assert not [path for path in named if not any((place / path).exists() for place in places)]


def anchors_of(page):
    titles = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title).strip().lower().replace(" ", "-") for title in titles}


def recorded(name, pattern):
    text = (ROOT / "benchmarks" / "results" / f"{name}.md").read_text(encoding="utf-8")
    return [float(number.replace(",", "")) for number in re.findall(pattern, text)]


def test_figures_of_the_readme_are_those_that_were_recorded():
    rates = r"(?m)^\| {} \| ([\d,]+) \| ([\d,]+) \|"
    text = (ROOT / "benchmarks" / "results" / "loading.md").read_text(encoding="utf-8")
    rows = re.findall(rates.format(r"(.*?)"), text.split("| batch 256 |")[0])
    faster = re.findall(rates.format(r"\*\*hexshards\*\*"), text.split("## On faster memory")[1])[0]
    best = {name: max(int(number.replace(",", "")) for number in numbers) for name, *numbers in rows}
    ours = best["**hexshards**"]
    others = {name: rate for name, rate in best.items() if "hexshards" not in name}
    pickles = others["pickles, a sample at a time, as hex_ai"]
    waiting = recorded("gpu", r"\| (?:float32|bfloat16) \| [\d,]+ \| [^|]+ \| ([\d.]+)%")
    taught = r"\| cheap \| files in turn.*?\|.*?\|.*?\| ([\d.]+) ± [\d.]+ % \| ([\d.]+) ±"
    text = (ROOT / "benchmarks" / "results" / "learning.md").read_text(encoding="utf-8")
    (truth, by_file), off = re.findall(taught, text)[0], re.findall(r"hexshards\*\*.*% \| ([+-][\d.]+) ±", text)
    assert len(off) == 8 and max(abs(float(points)) for points in off) < 1
    said = " ".join(README.read_text(encoding="utf-8").split())
    for figure in (
        f"{ours / 1e6:.1f} million samples a second",
        f"{ours / max(others.values()):.1f} times the next best of {len(others)} other ways",
        f"{ours / pickles:.0f} times pickles",
        f"on faster memory {max(int(rate.replace(',', '')) for rate in faster) / 1e6:.1f} million",
        "{:.1f} bytes a position".format(*recorded("convert", r"Shards: ([\d.]+) bytes")),
        "opens in {:.2f} s".format(*recorded("footprint", r"Opening 97,000,000 positions .*?: ([\d.]+) s")),
        "{:.2f} times the rate".format(*recorded("convert", r"whole convert, 2 workers \| [\d,]+ \| ([\d.]+)")),
        "within {:.0f} MiB".format(*recorded("scale", r"2026-11-25; memory allowed: (\d+) MiB")),
        f"{min(waiting):.1f}% to {max(waiting):.1f}%",
        f"by file it said {by_file}% where they said {truth}%",
    ):
        assert figure in said


def test_pictures_are_what_make_docs_tables_draws():
    spec = importlib.util.spec_from_file_location("pictures", ROOT / "docs" / "pictures.py")
    pictures = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(pictures)
    for name, drawn in pictures.pictures().items():
        assert (pictures.PICTURES / name).read_text(encoding="utf-8") == drawn, f"{name}: run `make docs-tables`"
