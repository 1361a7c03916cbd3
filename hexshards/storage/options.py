"""Options of remote datasets: how their files come down from a URL."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hexshards.arguments import fit_fields
from hexshards.options import check_options, option


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteSpec:
    """Options of remote datasets: how their files come down from a URL."""

    cache: Path | None = option(
        None,
        "Folder that shards of a URL come down to, else hexshards in $XDG_CACHE_HOME or ~/.cache.",
        shapes="nothing",
    )
    cache_bytes: int = option(
        50 << 30,
        "What the cache may hold: 2 billion positions at 23 bytes each.",
        least=1,
        offered="spec",
        shapes="nothing",
    )
    chunk_bytes: int = option(
        4 << 20, "What one request asks for, and what a kill loses at most.", least=1, offered="spec", shapes="nothing"
    )
    stall_s: float = option(
        60, "A request that takes longer has failed: 70 kB/s.", least=0, finite=False, offered="spec", shapes="nothing"
    )
    give_up_s: float = option(
        300,
        "Time after which a file that can't be fetched is an error; a request that is under way is waited for.",
        least=0,
        finite=False,
        offered="spec",
        shapes="nothing",
    )
    first_wait_s: float = option(
        0.5,
        "Wait after the first failure; each further one doubles it, up to 30 s.",
        least=0,
        finite=False,
        offered="spec",
        shapes="nothing",
    )
    threads: int = option(4, "Files fetched at once, ahead of their use.", least=1, offered="spec", shapes="nothing")

    def __post_init__(self) -> None:
        fit_fields(self)
        check_options(self)


REMOTE = RemoteSpec()
