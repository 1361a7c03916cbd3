from __future__ import annotations

import pytest

from hexshards.loading.selection.replay_window import MOST, ReplayWindow


def size(text, total):
    return ReplayWindow.parse(text).size(total)


def katago(total, *, minimum, exponent, expand, scale):
    """KataGo's formula as its shuffle script explains it, in floating point: what the window is compared with."""
    if total <= minimum:
        return total
    x = total - minimum + scale
    return min(total, minimum + expand * (x**exponent - scale**exponent) / (exponent * scale ** (exponent - 1)))


@pytest.mark.parametrize("exponent", [0.65, 0.675, 0.75, 1.0])
@pytest.mark.parametrize("scale", [50_000, 250_000, 3_000_000])
def test_the_power_law_is_the_one_that_katagos_shuffle_script_documents(exponent, scale):
    text = f"min=250k exponent={exponent} expand=0.4 scale={scale}"
    for total in (1, 249_999, 250_000, 250_001, 400_000, 10**6, 97 * 10**6, 241 * 10**6, 10**12):
        expected = katago(total, minimum=250_000, exponent=exponent, expand=0.4, scale=scale)
        assert size(text, total) == pytest.approx(expected, rel=1e-9, abs=1)


def test_the_window_begins_as_large_as_the_minimum_and_grows_by_expand_there():
    assert size("min=250k", 250_000) == 250_000
    assert size("min=250k", 251_000) - 250_000 == pytest.approx(400, abs=1)
    assert size("min=250k exponent=1 expand=0", 10**9) == 250_000
    assert size("min=250k exponent=1 expand=1", 10**9) == 10**9


def test_at_the_end_of_the_run_in_katagos_paper_the_window_holds_about_22_million():
    # arXiv:1902.10565: 241 million samples, c = 250,000, alpha = 0.75, beta = 0.4
    assert 22e6 < size("min=250k exponent=.75 expand=.4", 241 * 10**6) < 23.5e6


def test_a_window_never_shrinks_as_data_comes_and_never_exceeds_it():
    for text in ("min=100", "min=100 exponent=.3 expand=1", "min=7 scale=3 max=50", "120"):
        sizes = [size(text, total) for total in range(0, 2000, 7)]
        assert sizes == sorted(sizes)
        assert all(held <= total for total, held in zip(range(0, 2000, 7), sizes, strict=True))
    assert size("min=7 max=50", 10**9) == 50


def test_the_numbers_are_the_same_on_every_machine():
    # decimal, rounded down; floating point differs in its last bits, and so by a position, from one libm to another
    sizes = [size("min=250k", total) for total in (10**6, 10**7, 10**8, MOST)]
    assert sizes == [474_967, 1_788_252, 7_654_480, 268_179_633_814]


def test_a_window_says_itself_in_one_way():
    said = {
        "500k": "500000",
        "min=250k": "min=250000 exponent=0.65 expand=0.4",
        "expand=.5, min=1k,exponent=1 scale=2k max=1M": "min=1000 exponent=1 expand=0.5 scale=2000 max=1000000",
        "1e6 keep=100k by=generation": "1000000 keep=100000 by=generation",
        "keep=100k": "keep=100000",
        "": "",
    }
    for text, canonical in said.items():
        assert str(ReplayWindow.parse(text)) == canonical
        assert ReplayWindow.parse(canonical) == ReplayWindow.parse(text)
        assert ReplayWindow.parse(ReplayWindow.parse(text).shown) == ReplayWindow.parse(text)


def test_a_person_reads_a_window_as_one_types_it():
    for text in ("500k", "1M keep=100k by=generation", "min=250k exponent=0.65 expand=0.4", "keep=2.5k", "8192", ""):
        assert ReplayWindow.parse(text).shown == text


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("0", "'0' is no number of positions from 1 on"),
        ("-5", "'-5' is no number"),
        ("1e30", "'1e30' is no number"),
        ("9" * 5000, "is no number"),
        ("many", "'many' is no number"),
        ("500k 3", "'3' says nothing of a window"),
        ("500k min=3", "'min=3' says nothing"),
        ("minimum=3", r"'minimum=3' says nothing of a window\. Did you mean min"),
        ("min=3 min=4", "'min=4' says nothing of a window a second time"),
        ("min=", "min '' is no number"),
        ("exponent=0", "exponent must be more than 0"),
        ("exponent=1.5", "exponent='1.5' is no number from 0 to 1"),
        ("expand=nan", "expand='nan' is no number from 0 to 1"),
        ("min=10 max=9", "max=9 is less than min=10"),
        ("by=clock", "by='clock' is neither addition nor generation"),
    ],
)
def test_what_is_no_window_is_refused_in_one_sentence(text, fault):
    with pytest.raises(ValueError, match=f"window: {fault}|{fault}") as refused:
        ReplayWindow.parse(text)
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 500
