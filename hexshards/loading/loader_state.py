"""Schema of a loader's state: types, bounds, and what it must have in common with the loader that goes on from it.

Whatever a state claims is compared with it before anything is counted or sought by it.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, UnsetType

from hexshards.errors import escaped, printable, without_secrets
from hexshards.loading.epoch_plan import CHOICES, State
from hexshards.loading.selection.replay_window import ReplayWindow

Count = Annotated[int, Meta(ge=0, le=1 << 62)]
Text = Annotated[str, Meta(max_length=100_000)]
Switch = Annotated[int, Meta(ge=0, le=1)]

_SHOWN = 400
"""Characters of a value in an error: the fingerprints of six datasets that are mixed."""


class LoaderState(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """A place in an epoch, and what the order of its samples and their batches follows from."""

    version: Count
    dataset: Text
    split: Text
    seed: int
    shuffle: Switch
    augment: Text
    window_blocks: Count
    group_shards: Count
    global_batch: Count
    drop_last: Switch
    epoch: Count
    samples: Count
    where: Text | UnsetType = UNSET
    positions: Count | UnsetType = UNSET
    mix: Text | UnsetType = UNSET
    mix_schedule: Text | UnsetType = UNSET
    window: Text | UnsetType = UNSET
    per_game: Count | UnsetType = UNSET
    sources: Text | UnsetType = UNSET
    shards: Text | UnsetType = UNSET
    streams: Count | UnsetType = UNSET


def decoded(state: object, *, identity: State, samples: int, last_epoch: int) -> LoaderState:
    """The state that a loader with this identity, of so many samples an epoch, could have written itself.

    Raises ValueError, which names the field, for anything else.
    """
    given = _of_fields(state)
    converted = _converted(given)
    names = [*identity, *(name for name in CHOICES if name not in identity)]
    differ = [
        f"{name} is {_shown(name, identity)}, the state's {_shown(name, given)}"
        for name in names
        if given.get(name) != identity.get(name)
    ]
    if differ:
        raise ValueError(f"the state is of another stream of samples: {escaped('; '.join(differ))}")
    if converted.epoch > last_epoch:
        raise _no_state(f"epoch is {converted.epoch}, and the last can be {last_epoch}")
    if converted.samples > samples:
        raise _no_state(f"samples is {converted.samples}, and an epoch has {samples}")
    if converted.samples % converted.global_batch and converted.samples < samples:
        whole = f"no whole number of batches of {converted.global_batch}"
        raise _no_state(f"samples is {converted.samples}, {whole}")
    return converted


def _no_state(problem: str) -> ValueError:
    return ValueError(f"not a loader's state: {problem}")


def _of_fields(state: object) -> dict[str, int | str]:
    if not isinstance(state, Mapping):
        raise _no_state(f"it must be a dict, and is of type {_kind(state)}")
    given = dict(state)
    if missing := sorted({*LoaderState.__struct_fields__} - {*CHOICES, *given}):
        raise _no_state(f"it lacks {', '.join(missing)}")
    if unknown := [key for key in given if key not in LoaderState.__struct_fields__]:
        names = ", ".join(printable(key) if isinstance(key, str) else f"a {_kind(key)}" for key in unknown[:3])
        raise _no_state(f"it has unknown {names}")
    for name, value in given.items():
        # a NumPy number or a subclass of text may be anything where it is used next
        if type(value) not in (int, str):
            raise _no_state(f"{name} cannot be of type {_kind(value)}")
    return given


def _converted(given: Mapping[str, int | str]) -> LoaderState:
    # a name of a file may be no Unicode, and msgspec takes no such text
    readable = {name: _unicode(value) if isinstance(value, str) else value for name, value in given.items()}
    try:
        return msgspec.convert(readable, LoaderState)
    except msgspec.ValidationError as error:
        problem, _, place = str(error).partition(" - at `$.")
        raise _no_state(f"{place.rstrip('`')} cannot be: {problem}") from None


def _unicode(text: str) -> str:
    return text.encode(errors="replace").decode()


def _kind(value: object) -> str:
    return printable(type(value).__name__)


def _shown(name: str, state: State) -> str:
    value = state.get(name, "not given")
    if name == "window":
        with suppress(ValueError):  # a state may hold anything
            value = ReplayWindow.parse(str(value)).shown
    # Python does not write down a number of more than 4,300 digits
    long = isinstance(value, int) and value.bit_length() > _SHOWN
    return "a number without end" if long else printable(without_secrets(str(value)), width=_SHOWN)
