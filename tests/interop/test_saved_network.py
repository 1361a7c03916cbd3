"""A network loaded from a file, asked what to play and who wins."""

from __future__ import annotations

import gzip
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import small_hex_ai
from helpers.saved_networks import SIDE, boards, saved

from hexshards import load_network
from hexshards.errors import DataError
from hexshards.game.positions import Positions
from hexshards.training.checkpointing import checkpoint_file
from hexshards.training.steps.model import TwoHeadedResNet
from hexshards.training.steps.weights_file import weights_of

OURS = {"model": "helpers.small_hex_ai:create_model", "model_args": "resnet18"}


def test_a_runs_network_says_moves_and_the_probability_that_red_wins(tmp_path):
    model, given = saved(tmp_path / "best.pt"), boards()
    network = load_network(tmp_path / "best.pt")
    assert (network.side, network.value_output, network.model.training) == (SIDE, "logit", False)
    policy, red = network.predict(given)
    with torch.no_grad():
        logits, value = model(given)
    for row, board in enumerate(given):
        free = [cell for cell in range(25) if not (board[0].flatten()[cell] or board[1].flatten()[cell])]
        weights = {cell: math.exp(logits[row, cell]) for cell in free}
        wanted = [weights.get(cell, 0.0) / sum(weights.values()) for cell in range(25)]
        assert policy[row].tolist() == pytest.approx(wanted, abs=1e-6)
        assert float(red[row]) == pytest.approx(1 / (1 + math.exp(-value[row])), abs=1e-6)


def test_positions_and_boards_and_arrays_are_asked_alike(tmp_path, monkeypatch):
    saved(tmp_path / "best.pt")
    network, given = load_network(tmp_path / "best.pt"), boards(7)
    whole = network.predict(given)
    monkeypatch.setattr("hexshards.interop.saved_network.BOARDS_AT_ONCE", 3)
    for asked in (given, given.numpy(), given.numpy().astype(np.uint8)):
        assert torch.allclose(network.predict(asked).policy, whole.policy, atol=1e-6)
    assert torch.allclose(network.predict(positions_of(given)).red, whole.red, atol=1e-6)


def positions_of(given: torch.Tensor) -> Positions:
    """Boards as a dataset holds them."""
    rows = len(given)
    names = {"source": np.uint32, "game": np.int32, "ply": np.int16, "plies": np.int16, "tier": np.int8}
    return Positions(
        side=SIDE,
        stones=np.packbits(given[:, :2].reshape(rows, -1).numpy().astype(bool), axis=1),
        policy=np.full(rows, -1, dtype=np.int16),
        player=given[:, 2, 0, 0].numpy().astype(np.uint8),
        value=np.zeros(rows, dtype=np.float32),
        **{name: np.zeros(rows, dtype=kind) for name, kind in names.items()},
    )


def test_a_board_without_a_free_cell_has_no_move_and_no_boards_have_none(tmp_path):
    saved(tmp_path / "best.pt")
    network = load_network(tmp_path / "best.pt")
    full = torch.zeros(1, 3, SIDE, SIDE)
    full[:, 0] = 1
    policy, red = network.predict(full)
    assert policy.sum() == 0 and red.isfinite().all()
    assert network.predict(full[:0]).policy.shape == (0, 25)


def test_of_a_run_it_is_the_newest_checkpoint_also_when_training_removes_the_one_that_was(tmp_path, monkeypatch):
    checkpoints = tmp_path / "run" / "checkpoints"
    for at in ((1, 9), (2, 1), (2, 2)):
        saved(checkpoints / checkpoint_file.file_name(*at))
    saved(checkpoints / checkpoint_file.file_name(2, 3, partial=True))
    assert load_network(tmp_path / "run").path.name == "checkpoint_epoch0002_mini0003_partial.pt"

    def listed_and_then_removed(folder):
        newest = checkpoint_file.newest_first(folder)
        if len(newest) > 2:
            newest[0].unlink()
        return newest

    monkeypatch.setattr("hexshards.interop.saved_network.newest_first", listed_and_then_removed)
    assert load_network(tmp_path / "run").path.name == "checkpoint_epoch0002_mini0001.pt"


def test_a_folder_without_a_checkpoint_and_a_newest_one_that_cannot_be_read_are_told(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(FileNotFoundError, match=r"no checkpoint in this folder\. Name|no such file"):
            load_network(folder)
    (tmp_path / "checkpoints" / checkpoint_file.file_name(1, 1)).symlink_to("nowhere")
    with pytest.raises(DataError, match=r"checkpoint_epoch0001_mini0001\.pt.*cannot be read"):
        load_network(tmp_path)
    saved(tmp_path / "checkpoints" / checkpoint_file.file_name(1, 2))
    whole = (tmp_path / "checkpoints" / checkpoint_file.file_name(1, 2)).read_bytes()
    (tmp_path / "checkpoints" / checkpoint_file.file_name(1, 2)).write_bytes(whole[:-1000])
    with pytest.raises(DataError, match=r"mini0002\.pt"):
        load_network(tmp_path)


@pytest.mark.parametrize("shape", [(3, 5, 5), (1, 2, 5, 5), (1, 3, 5, 6), (1, 3, 6, 6)])
def test_what_is_no_boards_of_its_side_is_refused_in_words(tmp_path, shape):
    saved(tmp_path / "best.pt")
    with pytest.raises(ValueError, match=r"boards must be of shape \(B, 3, 5, 5\), got \("):
        load_network(tmp_path / "best.pt").predict(torch.zeros(shape))


def test_hex_ais_checkpoint_is_recognised_as_a_tanh_and_its_factory_is_for_the_caller_to_name(tmp_path):
    path = tmp_path / "epoch3_mini4.pt.gz"
    trainer = small_hex_ai.Trainer(small_hex_ai.create_model("resnet18"), None)
    trainer.save_checkpoint(path, {"total_loss": np.float64(1)}, {})
    with pytest.raises(DataError, match=r"epoch3_mini4\.pt\.gz: holds a network of another make .* Name what makes it"):
        load_network(path)
    network, given = load_network(path, **OURS), boards(2, side=13)
    assert (network.side, network.value_output) == (None, "tanh")
    with torch.no_grad():
        value = small_hex_ai.loaded_network(path)(given)[1]
    assert torch.allclose(network.predict(given).red, (value[:, 0] + 1) / 2)
    assert load_network(path, **OURS, value_output="probability").value_output == "probability"


def test_a_factory_that_only_the_file_names_is_never_imported(tmp_path):
    saved(tmp_path / "best.pt", torch.nn.Linear(2, 2), model="antigravity:fly", model_args="1")
    with pytest.raises(DataError, match=r"another make .*; its run says antigravity:fly with model_args 1\. Name what"):
        load_network(tmp_path / "best.pt")


def test_the_moving_average_is_loaded_when_it_is_asked_for(tmp_path):
    saved(tmp_path / "best.pt")
    weights = checkpoint_file.read(tmp_path / "best.pt")["ema_state_dict"]
    average = load_network(tmp_path / "best.pt", ema=True).model.state_dict()
    assert all(torch.equal(average[name], part) for name, part in weights.items())
    torch.save(TwoHeadedResNet(channels=2, blocks=0).state_dict(), tmp_path / "weights.pt")
    with pytest.raises(DataError, match="holds no moving average"):
        load_network(tmp_path / "weights.pt", ema=True)


def test_bare_weights_of_hexshards_own_network_say_how_large_it_is(tmp_path):
    model = torch.nn.DataParallel(TwoHeadedResNet(channels=3, blocks=1))
    with gzip.open(tmp_path / "weights.pt.gz", "wb") as file:
        torch.save(model.state_dict(), file)
    network = load_network(tmp_path / "weights.pt.gz", side=7)
    assert (network.side, network.value_output, len(network.model.tower)) == (7, "logit", 1)


def test_a_network_with_more_heads_says_what_one_without_them_does(tmp_path):
    network = TwoHeadedResNet(channels=4, blocks=1, heads="policy,value,search_value").eval()
    torch.save(network.state_dict(), tmp_path / "more.pt")
    loaded, (_, value, _) = load_network(tmp_path / "more.pt"), network(boards(3))
    assert torch.allclose(loaded.predict(boards(3)).red, value.sigmoid()[:, 0])


def test_a_checkpoint_that_changed_is_refused_by_its_checksum(tmp_path):
    saved(path := tmp_path / "best.pt")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"best\.pt: does not match its checksum"):
        load_network(path)


@pytest.mark.parametrize("options", [{"side": 99}, {"side": "x"}, {"value_output": "odds"}])
def test_what_a_run_cannot_have_recorded_is_refused(tmp_path, options):
    saved(tmp_path / "best.pt", **options)
    with pytest.raises(DataError, match=r"best\.pt: has (side|value_output) (99|x|odds)"):
        load_network(tmp_path / "best.pt")


def test_weights_that_claim_more_than_the_file_holds_allocate_nothing(tmp_path):
    weights = TwoHeadedResNet(channels=2, blocks=0).state_dict()
    weights["stem.0.weight"] = torch.zeros(1).expand(1 << 40, 3, 3, 3)
    torch.save(weights, tmp_path / "weights.pt")
    with pytest.raises(DataError, match=r"weights\.pt: claims more numbers for stem\.0\.weight than it holds"):
        load_network(tmp_path / "weights.pt")
    with pytest.raises(DataError, match="claims more numbers for a than it holds"):
        weights_of({"a": torch.zeros(2).to_sparse()}, Path("weights.pt"))
    weights["stem.0.weight"] = torch.zeros(1 << 16, 3, 3, 3)
    torch.save(weights, tmp_path / "weights.pt")
    with pytest.raises(DataError, match=r"has of another shape .* and \d+ more"):
        load_network(tmp_path / "weights.pt")
