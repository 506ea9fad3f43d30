"""The training loop: killed and resumed, it ends with the weights of an uninterrupted run."""

import os
import signal

import numpy as np
import pytest
import torch
from torch import nn

from wsss_core import keyed
from wsss_core.errors import UserError
from wsss_core.execution import Execution
from wsss_core.training import fit, polynomial


class Points:
    """Batch k is a function of k alone."""

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, step: int) -> torch.Tensor:
        return torch.from_numpy(keyed.generator(0, "points", step).standard_normal((8, 3), dtype="float32"))


def train(steps=12, state=None, hook=None, fingerprint="a", rate=None, workers=0, learning_rate=0.1):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.5), nn.Linear(8, 1))
    optimizer = torch.optim.SGD(network.parameters(), lr=learning_rate, momentum=0.9)
    calls = []

    def loss(batch):
        calls.append(optimizer.param_groups[0]["lr"])
        if hook:
            hook(len(calls))
        return {"loss": network(batch).square().mean() - network(batch).mean()}

    history = fit(
        network,
        Points(steps),
        loss,
        optimizer,
        rate or polynomial(steps),
        seed=0,
        execution=Execution("cpu", workers=workers),
        state=state,
        fingerprint=fingerprint,
        save_seconds=0.0,
        log_every=4,
    )
    return network.state_dict(), history, calls


def equal(one, two):
    return all(torch.equal(one[name], two[name]) for name in one)


def test_rates_follow_the_schedule():
    _, _, rates = train(4)
    assert rates == pytest.approx([0.1 * (1 - k / 4) ** 0.9 for k in range(4)])


def test_history_has_one_row_a_window():
    _, history, _ = train(10)
    assert [row["step"] for row in history] == [4, 8, 10]


@pytest.mark.parametrize("kind", ["crash", "sigterm"])
def test_resumed_equals_uninterrupted(tmp_path, kind):
    whole, history, _ = train()

    def interrupt(call):
        if call == 6:
            if kind == "crash":
                raise RuntimeError
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(RuntimeError if kind == "crash" else SystemExit):
        train(state=tmp_path / "state.pt", hook=interrupt)
    assert (tmp_path / "state.pt").exists()
    resumed, resumed_history, calls = train(state=tmp_path / "state.pt")
    assert len(calls) < 12
    assert equal(whole, resumed) and history == resumed_history
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def test_state_of_other_settings_is_not_used(tmp_path):
    def interrupt(call):
        if call == 6:
            raise RuntimeError

    with pytest.raises(RuntimeError):
        train(state=tmp_path / "state.pt", hook=interrupt)
    _, _, calls = train(state=tmp_path / "state.pt", fingerprint="b")
    assert len(calls) == 12


def damage(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def cut(path):
    path.write_bytes(path.read_bytes()[:-300])


def empty(path):
    path.write_bytes(b"")


@pytest.mark.parametrize("spoil", [damage, cut, empty])
def test_a_damaged_state_means_starting_afresh(tmp_path, spoil, caplog):
    whole, history, _ = train()

    def interrupt(call):
        if call == 6:
            raise RuntimeError

    with pytest.raises(RuntimeError):
        train(state=tmp_path / "state.pt", hook=interrupt)
    spoil(tmp_path / "state.pt")
    weights, rows, calls = train(state=tmp_path / "state.pt")
    assert len(calls) == 12 and equal(whole, weights) and rows == history
    assert "state.pt: is damaged, so what it holds is computed again" in caplog.text


def test_a_state_that_cannot_be_written_does_not_end_the_training(tmp_path, caplog):
    (tmp_path / "file").touch()
    whole, _, _ = train()
    weights, _, calls = train(state=tmp_path / "file" / "state.pt")
    assert len(calls) == 12 and equal(whole, weights)
    assert "state.pt: cannot be written, so a kill from here on costs what was trained" in caplog.text


def test_workers_do_not_change_the_result():
    assert equal(train(6)[0], train(6, workers=2)[0])


def test_diverging_loss_is_an_error():
    with pytest.raises(UserError, match="lower the learning rate"):
        train(60, learning_rate=1e6, rate=lambda _: 1.0)


def test_the_order_of_an_epoch_is_that_of_its_key():
    for epoch in (0, 1, 2, 1):
        expected = keyed.generator(5, "classifiers/a", "epoch", epoch).permutation(50)
        assert np.array_equal(keyed.epoch_order(5, "classifiers/a", epoch, 50), expected)
