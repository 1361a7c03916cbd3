"""An option is declared once: commands, keyword arguments, sweeps and records know of it what its field says."""

from __future__ import annotations

import inspect
from dataclasses import MISSING, dataclass, fields

import pytest
import typer

import hexshards
from hexshards.arguments import hints_of
from hexshards.cli.app import app
from hexshards.conversion import random_files
from hexshards.conversion.options import WORK, ConvertOptions, ConvertSpec, WorkSpec
from hexshards.game.options import SynthSpec
from hexshards.loading.options import LoaderOptions, LoaderSpec
from hexshards.options import (
    about,
    as_recorded,
    changed,
    check_option,
    may_change,
    offered_in,
    option,
    options_in,
    takes,
)
from hexshards.publishing.options import PublishOptions, PublishSpec
from hexshards.storage.options import RemoteSpec
from hexshards.training.options import StepSpec, TrainSpec

SPECS = [ConvertSpec, WorkSpec, LoaderSpec, StepSpec, TrainSpec, RemoteSpec, SynthSpec, PublishSpec]

KEYWORDS = [
    (hexshards.convert, ConvertSpec, ConvertOptions),
    (hexshards.loader, LoaderSpec, LoaderOptions),
    (hexshards.publish, PublishSpec, PublishOptions),
]
"""Functions that take a spec's options, and the TypedDict by which type checkers know them."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    flour: int = option(500, "Grams.", shapes="bytes", least=1)
    salt: float = option(0.5, "Grams.", shapes="nothing", above=0, below=9)
    oven: str = option("", "Which.", shapes="nothing", offered="python", recorded=False)
    rest: int = option(2, "Hours.", shapes="nothing", least=1, most=1_000, offered="spec")


# one declaration ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spec", SPECS)
def test_every_field_of_a_spec_is_an_option_with_its_help(spec):
    assert list(options_in(spec)) == [each.name for each in fields(spec)]
    assert all(each.says.endswith(".") for each in about(spec).values())


@pytest.mark.parametrize(("function", "spec", "typed"), KEYWORDS)
def test_what_type_checkers_know_of_keyword_arguments_is_the_spec_to_the_letter(function, spec, typed):
    kinds = hints_of(spec)
    assert list(hints_of(typed).items()) == [(name, kinds[name]) for name in offered_in(spec, "command", "python")]
    assert not typed.__required_keys__


@pytest.mark.parametrize(("function", "spec", "typed"), KEYWORDS)
def test_a_function_shows_each_option_with_its_default_and_takes_no_other(function, spec, typed):
    shown = inspect.signature(function).parameters
    made = spec()
    assert {name: shown[name].default for name in hints_of(typed)} == {n: getattr(made, n) for n in hints_of(typed)}
    assert not any(each.kind is each.VAR_KEYWORD for each in shown.values())
    for name in ("no_such_option", *offered_in(spec, "spec")):
        with pytest.raises(TypeError, match=rf"^{function.__name__}\(\) got an unexpected keyword argument '{name}'"):
            function("nowhere", **{name: 1})


def test_an_option_that_is_mistyped_in_python_is_answered_with_the_one_that_may_be_meant():
    with pytest.raises(TypeError, match=r"^loader\(\) got .* 'batch_sise'\. Did you mean batch_size\?$"):
        hexshards.loader("nowhere", batch_sise=3)


def test_random_files_and_conversions_have_the_defaults_of_their_specs():
    for function, made in ((random_files.write, SynthSpec()), (hexshards.convert, WORK)):
        shown = inspect.signature(function).parameters
        assert {name: shown[name].default for name in options_in(made)} == as_recorded(made)


@pytest.mark.parametrize(("command", "spec"), [("convert", ConvertSpec), ("train", TrainSpec), ("synth", SynthSpec)])
def test_a_command_has_what_its_spec_offers_with_its_default_help_and_panel(command, spec):
    parameters = {each.name: each for each in typer.main.get_command(app).commands[command].params}
    for name in offered_in(spec, "command"):
        taken, said = parameters[name], about(spec)[name]
        assert (taken.default, taken.help) == (options_in(spec)[name].default, said.says)
        assert (taken.rich_help_panel, taken.required) == (said.panel, False)
    assert not parameters.keys() & set(offered_in(spec, "spec"))


# bounds -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("flour", 0, "flour must be at least 1, got 0"),
        ("salt", 0.0, "salt must be more than 0, got 0.0"),
        ("salt", 9.0, "salt must be less than 9, got 9.0"),
        ("salt", float("inf"), "salt must be finite, got inf"),
        ("rest", 0, "rest must be 1 to 1,000, got 0"),
        ("rest", 1_001, "rest must be 1 to 1,000, got 1001"),
    ],
)
def test_what_is_beyond_the_bounds_is_refused_by_name(name, value, told):
    with pytest.raises(ValueError) as refused:
        check_option(Recipe, name, value)
    assert str(refused.value) == told


@pytest.mark.parametrize(("name", "value"), [("flour", 1), ("salt", 8.9), ("rest", 1), ("rest", 1000), ("flour", None)])
def test_what_is_within_the_bounds_is_taken(name, value):
    check_option(Recipe, name, value)


@pytest.mark.parametrize("spec", SPECS)
def test_every_default_is_within_its_own_bounds(spec):
    for name, each in options_in(spec).items():
        if each.default is not MISSING:
            check_option(spec, name, each.default)


# what another value changes -----------------------------------------------------------------------------------------


def test_what_may_change_when_a_run_goes_on_is_what_version_0_1_let_change_and_what_came_since():
    assert may_change(TrainSpec) == {
        *("accumulate", "compile", "channels_last", "data", "run", "cache", "epochs", "max_samples", "max_time"),
        *("on_error", "device", "resume", "num_workers", "threads", "patience", "keep_last", "keep_every", "diagnose"),
        *("samples_per_position",),  # came later, and only lets a run wait
    }


def test_an_index_records_all_options_that_shape_its_bytes_and_no_others():
    shaping = {name: each for name, each in about(ConvertSpec).items() if each.shapes == "bytes"}
    # what came after version 0.1 stands there only where it was given: an index without it is as it was
    assert [*as_recorded(ConvertSpec())] == [name for name, each in shaping.items() if not each.later]
    assert [*as_recorded(ConvertSpec(side=5, games="rated=yes", test_fraction=0.1))] == [*shaping]
    assert {each.shapes for each in about(WorkSpec).values()} == {"nothing"}


def test_what_is_not_recorded_is_left_out():
    assert as_recorded(Recipe(oven="left")) == {"flour": 500, "salt": 0.5, "rest": 2}


def test_changed_options_are_those_that_are_not_as_the_spec_has_them():
    assert changed(Recipe(), {"flour": 500, "salt": 1.0}) == {"salt": 1.0}


def test_a_function_that_takes_options_hands_them_on():
    @takes(Recipe)
    def bake(*, hot: bool, **options):
        return hot, options

    assert bake(hot=True, flour=3, oven="right") == (True, {"flour": 3, "oven": "right"})
    assert [*inspect.signature(bake).parameters] == ["hot", "flour", "salt", "oven"]
