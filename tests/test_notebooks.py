from __future__ import annotations

from dataclasses import replace
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest
from helpers.small_data import CUT, processed

from hexshards.conversion.convert import convert
from hexshards.dataset.index import read_index
from hexshards.loading.loader import loader
from hexshards.training.tracking.records import Outcome

HOSTILE = "</td><script>alert('1')</script>\x1b&"


HARMLESS = {"div", "p", "strong", "table", "thead", "tbody", "tr", "th", "td"} | {
    *("svg", "title", "text", "line", "path", "polyline", "rect", "circle")
}


class Text(HTMLParser):
    """Elements and text of what a notebook is given."""

    def __init__(self, markup):
        super().__init__()
        self.tags, self.open, self.text = set(), [], []
        self.feed(markup)
        self.close()
        assert self.open == []
        assert self.tags <= HARMLESS

    def handle_starttag(self, tag, attributes):
        assert not [name for name, _ in attributes if name.startswith("on")]
        self.tags.add(tag)
        self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def text_of(shown):
    return " ".join(Text(shown._repr_html_()).text)


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    folder = tmp_path_factory.mktemp("notebooks")
    return convert(processed(folder / "in", games=24), out=folder / "data", **CUT)


def test_a_conversion_shows_what_it_kept_and_rejected(report):
    text = text_of(replace(report, rejects={HOSTILE: 3}, notes=(HOSTILE,)))
    assert f"{report.positions:,} positions converted into" in text
    assert text.count(HOSTILE.replace("\x1b", r"\x1b")) == 2


def test_an_index_shows_its_splits_options_and_plies(report):
    index = read_index(report.out)
    text = text_of(replace(index, options={HOSTILE: HOSTILE, "seed": 7}))
    assert all(f"{split.positions:,}" in text for split in index.splits.values())
    assert "seed 7" in text
    assert "svg" in Text(index._repr_html_()).tags
    assert index.fingerprint in text_of(index)


def test_a_loader_shows_its_batches_and_its_spec(report):
    text = text_of(loader(report.out, batch_size=32, augment="cycle"))
    assert "samples an epoch in" in text
    assert "batches of 32" in text
    assert "augment cycle" in text
    assert f"{read_index(report.out).splits['train'].positions:,} of train" in text


def test_a_loader_prints_as_what_it_gives_and_where_it_stands(report):
    shown = loader(report.out, split="val", batch_size=32)
    used = f"{read_index(report.out).splits['val'].positions:,} positions of val"
    assert str(shown) == f"<Loader of {report.out}: {used}, batch_size 32, epoch 0>"
    shown.set_epoch(7)
    assert repr(shown).endswith("epoch 7>")


@pytest.mark.parametrize("columns", [(), ("weight",)])
def test_a_batch_shows_its_first_samples_as_boards(report, columns):
    batch = next(iter(loader(report.out, batch_size=32, augment="none", columns=columns)))
    picture = ElementTree.fromstring(batch._repr_svg_())
    blue = sum(each.get("class") == "hex-blue" for each in picture.iter())
    captions = [each.text for each in picture.iter() if each.get("class") == "hex-caption"]
    assert blue == int(batch.board[:8, 0].sum())
    movers = ["RED" if board[2, 0, 0] else "BLUE" for board in batch.board[:8]]
    winners = ["RED" if value else "BLUE" for value in batch.value[:8]]
    assert captions == [f"{mover} to move · {winner} wins" for mover, winner in zip(movers, winners, strict=True)]


def test_the_end_of_a_run_shows_its_losses_and_its_files(tmp_path):
    outcome = Outcome(
        interrupted=False,
        stopped=None,
        epochs=1,
        mini_epochs=2,
        samples_seen=2000,
        resumed_from=None,
        checkpoint=tmp_path / "last.pt",
        best=tmp_path / "best.pt",
        metrics={"val": {"loss": 1.5, "policy_loss": 2.0, "value_loss": 0.5}},
        notices=(HOSTILE,),
    )
    text = text_of(outcome)
    assert "trained 2 mini-epochs: 2,000 samples" in text
    assert "val 1.5000 (policy 2.0000, value 0.5000)" in text
    assert str(tmp_path / "best.pt") in text
    assert HOSTILE.replace("\x1b", r"\x1b") in text
