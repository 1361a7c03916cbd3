"""Options of publishing a dataset: what only its owner can say, and how much of it is shown."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypedDict

from hexshards.arguments import fit_fields
from hexshards.errors import nearest, printable
from hexshards.options import check_options, option, require

LICENSES = (
    *("cc0-1.0", "cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0", "cc-by-nd-4.0", "cc-by-nc-sa-4.0", "cc-by-nc-nd-4.0"),
    *("odc-by", "odbl", "pddl", "cdla-permissive-1.0", "cdla-permissive-2.0", "cdla-sharing-1.0", "etalab-2.0"),
    *("mit", "apache-2.0", "bsd-2-clause", "bsd-3-clause", "gpl-2.0", "gpl-3.0", "lgpl-3.0", "agpl-3.0", "mpl-2.0"),
    *("cc", "cc-by-3.0", "cc-by-sa-3.0", "cc-by-nc-3.0", "cc-by-nc-sa-3.0", "cc-by-nc-nd-3.0", "gfdl", "isc"),
    *("unlicense", "wtfpl", "zlib", "other", "unknown"),
)
"""Licenses of data by the names that the Hugging Face hub knows: it refuses a card with another one."""

_RULE = f"a dataset is published under a license: {', '.join(LICENSES[:-1])} or {LICENSES[-1]}"


def license_of(said: str) -> str:
    """The license of a name in any case, as SPDX writes ``CC-BY-4.0``. Raises ValueError where there is none."""
    name = "-".join(said.lower().split())
    name = name if name in LICENSES else name.removesuffix("-only").removesuffix("-or-later")
    if name in LICENSES:
        return name
    if near := nearest(name, LICENSES):
        raise ValueError(f"no license {printable(said)} is known{near}")
    raise ValueError(f"{_RULE}, got {printable(said)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishSpec:
    """What a published dataset says of itself."""

    license: str = option(
        "",
        "License that others may use the data under, such as cc-by-4.0, cc0-1.0, odc-by, mit or other. Must be "
        "given, but for a dry run; on a terminal it is asked for.",
        shapes="nothing",
    )
    name: str | None = option(None, "Name on the card.", unset="the last part of TARGET", shapes="nothing")
    creator: str | None = option(None, "Who made the data, for croissant.json.", shapes="nothing")
    homepage: str | None = option(None, "Where the data is found on the web, for croissant.json.", shapes="nothing")
    preview: int = option(
        10_000,
        "Positions of each split in the preview, out of 16 or more blocks drawn at random.",
        least=1,
        most=1_000_000,
        shapes="nothing",
    )

    def __post_init__(self) -> None:
        fit_fields(self)
        check_options(self)
        if self.license:
            object.__setattr__(self, "license", license_of(self.license))
        page = self.homepage or "https://"
        require(page.startswith(("https://", "http://")), "homepage begins with https://", page)

    def check_given(self) -> None:
        """Raise ValueError where no license was given: nobody but the owner can say under which one it is."""
        require(bool(self.license), f"{_RULE}; none was given")


class PublishOptions(TypedDict, total=False):
    """What ``hexshards.publish`` takes: the options of PublishSpec."""

    license: str
    name: str | None
    creator: str | None
    homepage: str | None
    preview: int
