"""Processes that talk to each other, over real sockets."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from hexshards.team import Team, here, joined

DEADLINE_S = 120


@pytest.fixture(scope="module")
def answers(tmp_path_factory) -> list[dict[str, Any]]:
    """What each of three processes was told, before and after the last of them was killed."""
    folder = tmp_path_factory.mktemp("answers")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "3"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [*torchrun, __file__, str(folder)]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=DEADLINE_S)
    assert ended.returncode == 1, ended.stderr
    return [json.loads(path.read_text()) for path in sorted(folder.iterdir())]


def test_each_process_knows_its_place(answers):
    assert [answer["place"] for answer in answers] == [[0, 3, 0], [1, 3, 1], [2, 3, 2]]


def test_what_is_true_in_one_process_is_true_in_all(answers):
    assert [answer["any"] for answer in answers] == [[False, True, True]] * 3


def test_sums_are_over_all_processes(answers):
    assert [answer["sum"] for answer in answers] == [[3.0, 0.75, 2.0**53 + 4]] * 3
    assert [answer["add"] for answer in answers] == [[3.0, 30.0]] * 3


def test_all_processes_get_the_value_of_the_first(answers):
    assert [answer["same"] for answer in answers] == [{"rank": 0, "word": "Größe", "none": None, "list": [0.1, 2]}] * 3


def test_all_processes_get_the_tensors_of_all_by_rank(answers):
    assert [answer["gather"] for answer in answers] == [[[0, 7], [1, 7], [2, 7]]] * 3


def test_a_process_without_others_talks_to_nobody():
    with joined() as team:
        assert team == here() == Team(rank=0, size=1)
    assert (team.any(False), team.any(True)) == (False, True)
    assert team.sum([1, 0.1]) == [1.0, 0.1]
    assert team.same({"a": 1}) == {"a": 1}
    part = torch.arange(2)
    assert team.gather(part) == [part] and team.add(part) is part


def test_a_killed_process_ends_the_others_with_an_error_that_says_so(answers):
    for rank in (0, 1):
        assert answers[rank]["error"].startswith(f"process {rank} of 3 lost another, which ended or did not answer (")
    assert "error" not in answers[2]


def test_an_error_of_ones_own_is_left_as_it_is():
    with pytest.raises(RuntimeError, match="mine"), joined():
        raise RuntimeError("mine")


# --- the processes ---


def talk(team: Team) -> dict[str, Any]:
    flags = [False, team.rank == 2, True]
    mine = {"rank": team.rank, "word": "Größe" * (team.rank + 1), "none": None, "list": [0.1, 2]}
    return {
        "place": [team.rank, team.size, team.local_rank],
        "any": [team.any(flag) for flag in flags],
        "sum": team.sum([team.rank, 0.25, (2.0**53, 2.0, 2.0)[team.rank]]),
        "add": team.add(torch.tensor([1.0, 10.0 * team.rank])).tolist(),
        "same": team.same(mine),
        "gather": [part.tolist() for part in team.gather(torch.tensor([team.rank, 7]))],
    }


def main(folder: Path) -> None:
    # torchrun ends the others with SIGTERM: here the sockets shall tell them
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    path = folder / f"{os.environ['RANK']}.json"
    try:
        with joined() as team:
            answer = talk(team)
            path.write_text(json.dumps(answer))
            team.any(False)
            if team.rank == 2:
                os.kill(os.getpid(), signal.SIGKILL)
            team.any(False)
    except ConnectionError as error:
        path.write_text(json.dumps({**answer, "error": str(error)}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
