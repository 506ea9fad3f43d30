"""Long steps tell their pace by the clock, and the lines are read back."""

from __future__ import annotations

import torch

from wsss_core import pace
from wsss_core.execution import Execution
from wsss_core.pace import Clock, Pace, read_pace
from wsss_core.training import fit


def test_the_last_pace_of_a_log_is_read():
    lines = [f"10:00:0{k} {Pace('step', k, 8, 0.25)}  loss 0.7{k}" for k in (1, 2)]
    assert read_pace("\n".join(["10:00:00 16 images, 5 classes, 8 steps", *lines])) == Pace("step", 2, 8, 0.25)
    assert read_pace("10:00:00 image 1/2 cannot be read") is None


def test_a_slow_first_step_is_told_at_once_and_quick_ones_every_half_minute():
    times = iter([0.0, 60.0, *range(61, 161)])
    clock = Clock("step", 101, now=lambda: float(next(times)))
    assert [done for done in range(1, 102) if clock.pace(done)] == [1, 31, 61, 91]


def test_steps_of_an_earlier_attempt_do_not_count_for_the_pace():
    times = iter([0.0, 10.0])
    assert Clock("step", 100, start=40, now=lambda: next(times)).pace(45) == Pace("step", 45, 100, 2.0)


def test_training_tells_its_pace_from_the_first_step_and_keeps_its_rows(monkeypatch, caplog):
    monkeypatch.setattr(pace, "FIRST", 0.0)
    caplog.set_level("INFO")
    network = torch.nn.Linear(1, 1)
    batches = [torch.ones(1, 1)] * 41
    rows = fit(
        network,
        batches,
        lambda batch: {"loss": network(batch).square().mean()},
        torch.optim.SGD(network.parameters(), 0.01),
        lambda step: 1.0,
        seed=0,
        execution=Execution(device="cpu"),
    )
    assert [row["step"] for row in rows] == [20, 40, 41]
    assert [message.split("  ")[0] for message in caplog.messages] == ["step 1/41", "step 41/41"]
