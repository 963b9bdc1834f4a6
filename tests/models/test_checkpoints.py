"""A training that was killed and resumed ends with the bits of one that was not; a damaged checkpoint is ignored."""

import os
import signal

import pytest
import torch
from torch import nn

from coreml_prune_bench.models.checkpoints import Checkpoint, signals_held_back
from coreml_prune_bench.models.config import Distillation, TrainingConfig
from coreml_prune_bench.models.pruning.magnitude_pruner.config import MagnitudePrunerConfig
from coreml_prune_bench.models.pruning.magnitude_pruner.prune import fine_tune
from coreml_prune_bench.models.pruning.task import PruningTask
from coreml_prune_bench.models.training import Session, train
from coreml_prune_bench.models.weights import untrained_model
from tests.latency.noise import Noise
from tests.tiny_network import TINY

STEPS = 20
TRAINING = {"epochs": 4, "batch_size": 8, "learning_rate": 0.05, "label_smoothing": 0.1, "batchnorm_samples": 40}


class Killed(Exception):
    pass


def with_dropout() -> nn.Module:
    model = untrained_model(TINY, 4)
    model.pool = nn.Sequential(model.pool, nn.Dropout(0.3))
    return model


def fine_tuned(checkpoint: Checkpoint | None = None, kill_at: int | None = None, **training) -> nn.Module:
    """A pruned network after 20 steps with everything that has a state, or Killed after `kill_at` of them."""

    def progress(done: int, total: int) -> None:
        if done == kill_at:
            raise Killed

    model = with_dropout()
    config = MagnitudePrunerConfig(
        sparsity=0.75,
        initial_sparsity=0.1,
        updates=7,
        distillation=Distillation(),
        training=TrainingConfig(**TRAINING | training),
    )
    session = Session(checkpoint=checkpoint)
    fine_tune(config, PruningTask(TINY, model, 16, Noise(), trial=1, progress=progress, session=session))
    return model


def checkpoint(path, key: str = "k", interval_s: float = 0) -> Checkpoint:
    return Checkpoint(path / "checkpoint", key, interval_s, warn=lambda line: None)


def weights(model: nn.Module) -> torch.Tensor:
    return torch.cat([value.flatten().double() for value in model.state_dict().values()])


@pytest.fixture(scope="module")
def uninterrupted() -> torch.Tensor:
    return weights(fine_tuned())


@pytest.mark.parametrize("every", [1, 3], ids=["saved at each step", "saved at every third"])
def test_killed_at_several_points_and_resumed_it_ends_with_the_same_bits(tmp_path, monkeypatch, uninterrupted, every):
    saved: list[int] = []
    due = iter(range(1, 1000))
    save = Checkpoint.save
    monkeypatch.setattr(Checkpoint, "is_due", lambda self: next(due) % every == 0)
    monkeypatch.setattr(Checkpoint, "save", lambda self, state: (saved.append(state["step"]), save(self, state)))
    for kill_at in (2, 5, 6, 11, 19, 20):
        with pytest.raises(Killed):
            fine_tuned(checkpoint(tmp_path), kill_at=kill_at)
    first = len(saved)
    assert torch.equal(weights(fine_tuned(checkpoint(tmp_path))), uninterrupted)
    assert len(saved) - first <= STEPS - saved[first - 1]  # it did not start again
    assert torch.equal(weights(fine_tuned(checkpoint(tmp_path))), uninterrupted)  # from the last state there is


def test_without_a_checkpoint_in_time_it_starts_again(tmp_path, uninterrupted):
    with pytest.raises(Killed):
        fine_tuned(checkpoint(tmp_path, interval_s=3600), kill_at=15)
    assert not list(tmp_path.iterdir())
    assert torch.equal(weights(fine_tuned(checkpoint(tmp_path, interval_s=3600))), uninterrupted)


@pytest.mark.parametrize("schedule", ["cosine", "constant"])
def test_every_schedule_is_resumed(tmp_path, schedule):
    settings = {"schedule": schedule, "warmup_share": 0.2, "decay_all": False}
    with pytest.raises(Killed):
        fine_tuned(checkpoint(tmp_path), kill_at=3, **settings)
    assert torch.equal(weights(fine_tuned(checkpoint(tmp_path), **settings)), weights(fine_tuned(**settings)))


class Terminated(Exception):
    pass


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_waits_for_the_step_and_the_checkpoint(tmp_path, number):
    def terminate(*_):
        raise Terminated

    former = signal.signal(number, terminate)
    try:
        model = with_dropout()
        settings = TrainingConfig(**TRAINING)
        session = Session(checkpoint=checkpoint(tmp_path, interval_s=3600))
        with pytest.raises(Terminated):
            train(
                model,
                Noise(),
                settings,
                order_seed=0,
                session=session,
                progress=lambda done, total: os.kill(os.getpid(), number) if done == 7 else None,
            )
        assert signal.getsignal(number) is terminate
    finally:
        signal.signal(number, former)
    assert session.checkpoint.load()["step"] == 7
    reference, resumed = with_dropout(), with_dropout()
    train(reference, Noise(), settings, order_seed=0)
    train(resumed, Noise(), settings, order_seed=0, session=session)
    assert torch.equal(weights(resumed), weights(reference))


def test_a_signal_that_others_handle_without_an_end_does_not_cut_the_training_short(tmp_path):
    received = []
    former = signal.signal(signal.SIGTERM, lambda *_: received.append(1))
    try:
        with signals_held_back() as stop:
            os.kill(os.getpid(), signal.SIGTERM)
            assert stop
            assert not received
            stop.obey()
            assert received
            assert not stop
    finally:
        signal.signal(signal.SIGTERM, former)


def test_a_second_ctrl_c_takes_effect_at_once():
    def press_twice() -> None:
        with signals_held_back() as stop:
            os.kill(os.getpid(), signal.SIGINT)
            assert stop
            os.kill(os.getpid(), signal.SIGINT)
            pytest.fail("it went on")

    former = signal.signal(signal.SIGINT, signal.default_int_handler)  # which a background process inherits as ignored
    try:
        with pytest.raises(KeyboardInterrupt):
            press_twice()
    finally:
        signal.signal(signal.SIGINT, former)


def test_a_checkpoint_of_another_key_is_none(tmp_path):
    checkpoint(tmp_path, "one").save({"step": 1})
    assert checkpoint(tmp_path, "one").load() == {"step": 1}
    assert checkpoint(tmp_path, "other").load() is None


@pytest.mark.parametrize("length", [0, 10, 200, None])
def test_a_damaged_checkpoint_is_named_and_none(tmp_path, length):
    lines: list[str] = []
    damaged = Checkpoint(tmp_path / "checkpoint", "k", 0, warn=lines.append)
    damaged.save({"step": 1, "weights": torch.arange(100)})
    content = damaged.path.read_bytes()
    flipped = content[:-9] + bytes([content[-9] ^ 1]) + content[-8:]
    damaged.path.write_bytes(flipped if length is None else content[:length])
    assert damaged.load() is None
    (line,) = lines
    assert str(damaged.path) in line


def test_a_save_that_fails_leaves_the_former_state(tmp_path, monkeypatch):
    kept = checkpoint(tmp_path)
    kept.save({"step": 1})

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        kept.save({"step": 2})
    assert kept.load() == {"step": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]
