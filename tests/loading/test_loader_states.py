"""A state of a loader is one that the loader could have written, or is refused in one sentence that names the field."""

from __future__ import annotations

import json
from dataclasses import replace
from types import MappingProxyType

import numpy as np
import pytest
import torch
from helpers.small_data import dataset
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hexshards.loading.loader import Loader
from hexshards.loading.loader_state import LoaderState
from hexshards.loading.options import LoaderSpec
from hexshards.options import about, options_in

WAYS = {
    "plain": {},
    "all in order": {"augment": "all", "shuffle": False, "drop_last": True},
    "chosen": {"where": "ply=2..", "positions": 50},
    "mix": {"positions": 60},
}
BATCH = 16


@pytest.fixture(scope="module")
def loaders(tmp_path_factory):
    first, second = (dataset(tmp_path_factory.mktemp("states"), games=12, seed=seed) for seed in (1, 2))
    opened = {way: Loader(first, LoaderSpec(batch_size=BATCH, seed=3, **options)) for way, options in WAYS.items()}
    opened["mix"] = Loader({str(first): 0.7, str(second): 0.3}, LoaderSpec(batch_size=BATCH, seed=3, **WAYS["mix"]))
    return opened


def could_write(loader, state):
    """The slow twin: whether a state is one of all that the loader writes in its epochs, types included."""
    if type(state) is not dict or type(state.get("epoch")) is not int:
        return False
    places = {*range(0, loader.samples, BATCH), loader.samples}
    mine = [{**loader._identity(), "epoch": state["epoch"], "samples": place} for place in places]
    as_typed = {key: (type(value), value) for key, value in state.items()}
    as_expected = any({key: (type(value), value) for key, value in each.items()} == as_typed for each in mine)
    return as_expected and 0 <= state["epoch"] < 1 << 31


def refusal(loader, state):
    """What a refused state is refused with; None for one that is taken."""
    before = loader.state_dict()
    try:
        loader.load_state_dict(state)
    except ValueError as error:
        assert loader.state_dict() == before
        return str(error)
    return None


@pytest.mark.parametrize("way", WAYS)
def test_every_state_that_a_loader_writes_is_taken_by_it(loaders, way):
    loader = loaders[way]
    loader.set_epoch(4)
    states = [loader.state_dict(), *(loader.state_dict() for _ in loader.packed()), loader.state_dict()]
    assert len(states) == len(loader) + 2
    for state in states:
        assert could_write(loader, state)
        assert refusal(loader, json.loads(json.dumps(state))) is None
        assert loader.state_dict() == state
    assert set(loader.state_dict()) <= set(LoaderState.__struct_fields__)


STRANGE = {
    "none": None,
    "text": "1",
    "number": 3,
    "list": [("epoch", 0)],
    "empty": {},
    "tensor": torch.zeros(3),
    "array": np.zeros(3),
    "type": dict,
}


@pytest.mark.parametrize("state", STRANGE.values(), ids=STRANGE)
def test_what_is_no_dict_of_a_states_fields_is_refused(loaders, state):
    assert refusal(loaders["plain"], state).startswith("not a loader's state: it ")


@pytest.mark.parametrize("name", sorted({"version", "dataset", "split", "seed", "global_batch", "epoch", "samples"}))
@pytest.mark.parametrize("way", WAYS)
def test_a_field_that_is_missing_is_named(loaders, way, name):
    state = loaders[way].state_dict()
    del state[name]
    assert refusal(loaders[way], state) == f"not a loader's state: it lacks {name}"


WRONG = [
    *(None, True, 1.0, float("nan"), [], [1], {}, {"a": 1}, b"1", 1j, np.int64(0), np.str_("a"), torch.tensor(0)),
    *(-1, 10**30, -(10**30), 10**5000, "1", "", "x" * 200_000, "\ud800", "\x1b[31m\n"),
]


@pytest.mark.parametrize("way", WAYS)
def test_a_field_of_another_kind_or_beyond_its_bounds_is_named(loaders, way):
    loader = loaders[way]
    for name in LoaderState.__struct_fields__:
        for value in WRONG:
            state = {**loader.state_dict(), name: value}
            said = refusal(loader, state)
            assert said and name in said and said.isprintable() and len(said) < 1_000, (name, value, said)


@pytest.mark.parametrize("extra", ["more", "\n\x1b[2J", "\ud800", "x" * 9_999, 1, None, (1, 2), 10**5000], ids=type)
def test_a_field_that_no_state_has_is_named(loaders, extra):
    said = refusal(loaders["plain"], {**loaders["plain"].state_dict(), extra: 1})
    assert "has unknown" in said and said.isprintable() and len(said) < 300
    assert not isinstance(extra, str) or extra[:4].encode("unicode_escape", "surrogatepass")[:2].decode() in said


def test_a_refusal_repeats_no_password_of_the_state(loaders):
    state = {**loaders["plain"].state_dict(), "where": "source=http://me:s3cret@host/d?signature=s3cret"}
    said = refusal(loaders["plain"], state)
    assert "another stream" in said and "http://host/d" in said and "s3cret" not in said


@pytest.mark.parametrize(
    ("place", "says"),
    [
        ({"samples": 1}, "samples is 1, no whole number of batches of 16"),
        ({"samples": 1 << 40}, "samples is 1099511627776, and an epoch has"),
        ({"samples": -1}, "samples cannot be: Expected `int` >= 0"),
        ({"epoch": 1 << 31}, "epoch is 2147483648, and the last can be 2147483647"),
        ({"epoch": -1}, "epoch cannot be: Expected `int` >= 0"),
    ],
)
def test_a_place_that_the_loader_never_comes_to_is_refused(loaders, place, says):
    assert says in refusal(loaders["plain"], {**loaders["plain"].state_dict(), **place})


def test_an_epoch_that_a_mix_could_not_count_to_is_refused_by_state_and_set_epoch_alike(loaders):
    mix = loaders["mix"]
    last = mix.epochs.last
    mix.set_epoch(last)
    next(mix.packed())
    assert refusal(mix, mix.state_dict()) is None
    assert "epoch is" in refusal(mix, {**mix.state_dict(), "epoch": last + 1})
    with pytest.raises(ValueError, match=f"epoch must be at most {last}"):
        mix.set_epoch(last + 1)


def test_a_state_of_files_whose_names_are_no_unicode_is_taken(tmp_path):
    data = dataset(tmp_path, games=12)
    loader = Loader(data, LoaderSpec(batch_size=BATCH, where="source=synth*|\udc80"))
    assert refusal(loader, loader.state_dict()) is None


def test_a_mapping_that_is_no_dict_may_hold_a_state(loaders):
    assert refusal(loaders["plain"], MappingProxyType(loaders["plain"].state_dict())) is None


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9) | st.binary(max_size=9)
    | st.integers(min_value=0, max_value=99) | st.sampled_from([10**30, 1 << 31, 1 << 63, "3:2", "7:3", "ply=2.."]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=4,
)  # fmt: skip
NAMES = st.sampled_from(LoaderState.__struct_fields__) | st.text(max_size=5)


@pytest.mark.parametrize("way", WAYS)
@settings(max_examples=300, deadline=None, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changed=st.dictionaries(NAMES, VALUES, max_size=3), left_out=st.sets(NAMES, max_size=1), other=VALUES)
def test_whatever_is_taken_the_loader_could_have_written_and_all_else_is_a_value_error(
    loaders, way, changed, left_out, other
):
    loader = loaders[way]
    good = loader.state_dict()
    for state in ({name: part for name, part in {**good, **changed}.items() if name not in left_out}, other):
        said = refusal(loader, state)
        assert (said is None) == could_write(loader, state), (state, said)
        assert said is None or "\n" not in said


OTHERWISE = {
    "split": "val",
    "batch_size": BATCH + 1,
    "shuffle": False,
    "augment": "cycle",
    "seed": 4,
    "drop_last": True,
    "num_workers": 1,
    "on_error": "skip",
    "window_blocks": 3,
    "group_shards": 2,
    "where": "ply=2..",
    "positions": 50,
    "window": "70",
    "per_game": 3,
    "sources": "*0*",
    "shards": "0..1",
    "policy": 0,  # as played as the word: the dataset has no visits
    "columns": ("ply",),
    "weights": "ply=2..:2",
    "streams": 2,
}
"""Each option of a loader, with another value than ``plain`` has."""


def test_a_state_fits_loaders_that_differ_in_what_does_not_shape_the_order_and_no_others(tmp_path):
    data, spec = dataset(tmp_path, games=23), LoaderSpec(batch_size=BATCH, seed=3)
    made = {name: Loader(data, replace(spec, **{name: value})) for name, value in OTHERWISE.items()}
    state = Loader(data, spec).state_dict()
    refused = {name for name, loader in made.items() if refusal(loader, state)}
    # only a mix has a schedule of shares: see test_mixture
    assert made.keys() | {"mix_schedule"} == options_in(LoaderSpec).keys()
    assert refused | {"mix_schedule"} == {name for name, each in about(LoaderSpec).items() if each.shapes == "order"}
