"""Checkpoints that are whole, damaged, half written, or do not fit on the disk."""

import dataclasses
import json
import shutil

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from ramstrans.errors import OutputError, TrainingError
from ramstrans.training import checkpoint as saving
from ramstrans.training.checkpoint import MANIFEST, Checkpoints, RunState, read_whole
from tests.tiny import same_state


class Run:
    """A prepared linear layer and its checkpoints."""

    def __init__(self, folder, keep=2):
        AcceleratorState._reset_state(reset_partial_state=True)
        torch.manual_seed(0)
        self.accelerator = Accelerator(cpu=True)
        model = torch.nn.Linear(3, 2)
        self.model, self.optimizer = self.accelerator.prepare(model, torch.optim.AdamW(model.parameters()))
        self.checkpoints = Checkpoints(folder / "run" / "checkpoints", keep)
        self.state = RunState()

    def train(self, steps, *, best=False):
        """Take steps, and save after the last."""
        for _ in range(steps):
            self.model(torch.randn(5, 3)).square().mean().backward()
            self.optimizer.step()
            self.optimizer.zero_grad()
            self.state.step += 1
        if best:
            self.state.best_step, self.state.best_score = self.state.step, float(self.state.step)
        self.checkpoints.save(self.accelerator, self.state, self.weights() if best else None)
        return self.weights()

    def weights(self):
        return {name: tensor.clone() for name, tensor in self.model.state_dict().items()}

    def load(self, state):
        return self.checkpoints.load(self.accelerator, state)


@pytest.fixture
def run(tmp_path):
    return Run(tmp_path)


def test_everything_comes_back(run):
    best = run.train(2, best=True)
    kept = run.train(3)
    state, draws = dataclasses.replace(run.state), torch.randn(4)
    later = run.train(2)
    shutil.rmtree(run.checkpoints.path(7))
    found = run.checkpoints.newest()
    assert found == state == RunState(step=5, best_step=2, best_score=2.0)
    assert same_state(run.load(found), best)
    assert same_state(run.weights(), kept)
    assert torch.equal(torch.randn(4), draws)  # the generators too
    run.state = found
    assert same_state(run.train(2), later)  # and the optimiser


def test_the_newest_and_the_best_are_kept(run):
    run.train(1)
    run.train(1, best=True)
    for _ in range(4):
        run.train(1)
    assert run.checkpoints.steps() == [6, 5, 2]


def test_the_best_one_of_the_newest_but_one_is_kept_too(run):
    """Or a newest one that is damaged, and the best, would leave nothing to go on from."""
    run.train(1, best=True)
    run.train(1)
    run.train(1, best=True)
    assert run.checkpoints.steps() == [3, 2, 1]
    flip(run.checkpoints.path(3) / "weights.safetensors")
    found = run.checkpoints.newest()
    assert (found.step, found.best_step) == (2, 1)
    run.train(1)
    assert run.checkpoints.steps() == [4, 3]


def test_folders_of_others_are_left_alone(run):
    run.train(1)
    (run.checkpoints.folder / "step-00000001.bak").mkdir()
    assert run.checkpoints.steps() == [1]
    run.train(1)
    assert (run.checkpoints.folder / "step-00000001.bak").is_dir()


def test_without_a_checkpoint_there_is_nothing(run):
    assert run.checkpoints.newest() is None
    assert run.checkpoints.steps() == []


def cut_short(path):
    path.write_bytes(path.read_bytes()[:-9])


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGES = {"cut short": cut_short, "flipped": flip, "gone": lambda path: path.unlink()}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.bin", "random_states_0.pkl", MANIFEST])
def test_a_damaged_checkpoint_is_named_and_not_used(run, name, damage, caplog):
    run.train(1)
    run.train(1)
    DAMAGES[damage](run.checkpoints.path(2) / name)
    caplog.clear()
    assert run.checkpoints.newest().step == 1
    [line] = caplog.messages
    assert "step-00000002" in line
    assert name in line or damage == "flipped"  # a flipped bit in the manifest may hit another's checksum


def test_every_file_is_under_the_checksum(run):
    run.train(2, best=True)
    folder = run.checkpoints.path(2)
    for path in sorted(folder.iterdir()):
        if path.name != MANIFEST:
            before = path.read_bytes()
            flip(path)
            with pytest.raises(TrainingError, match=f"{path.name} is damaged"):
                read_whole(folder)
            path.write_bytes(before)
    assert read_whole(folder) == run.state


def test_a_checkpoint_whose_best_one_is_damaged_is_skipped(run):
    run.train(1, best=True)
    run.train(1)
    flip(run.checkpoints.path(1) / "weights.safetensors")
    with pytest.raises(TrainingError, match="is whole; remove that folder"):
        run.checkpoints.newest()


def test_all_damaged_is_an_error_not_a_new_start(run):
    run.train(1)
    cut_short(run.checkpoints.path(1) / "model.safetensors")
    with pytest.raises(TrainingError, match="start again"):
        run.checkpoints.newest()


def test_a_half_written_checkpoint_is_none(run):
    run.train(1)
    leftover = run.checkpoints.folder / ".step-00000002.tmp"
    leftover.mkdir()
    (leftover / "model.safetensors").write_bytes(b"half")
    assert run.checkpoints.newest().step == 1
    run.train(1)
    assert not leftover.exists()
    assert run.checkpoints.newest().step == 2


def test_a_checkpoint_of_an_abandoned_future_is_replaced(run):
    run.train(1)
    run.train(1)
    flip(run.checkpoints.path(2) / "model.safetensors")
    run.state = run.checkpoints.newest()
    run.load(run.state)
    run.train(1)
    assert read_whole(run.checkpoints.path(2)).step == 2


@pytest.mark.parametrize("where", ["save_state", "save_file", "sync"])
def test_a_full_disk_is_an_error_and_leaves_the_last_one(run, monkeypatch, where):
    run.train(1, best=True)
    kept = {path: path.read_bytes() for path in run.checkpoints.folder.rglob("*") if path.is_file()}

    def full(*_args, **_options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(run.accelerator if where == "save_state" else saving, where, full)
    with pytest.raises(OutputError, match=r"step-00000002 .*No space left.*step 1 is untouched.*--resume"):
        run.train(1, best=True)
    monkeypatch.undo()
    assert {path: path.read_bytes() for path in run.checkpoints.folder.rglob("*") if path.is_file()} == kept
    assert run.checkpoints.newest().step == 1


def train_for_ever(run):
    while True:
        run.train(1)


def test_a_disk_that_is_really_full(tmp_path):
    """On a file system of its own, 1 MB large, where this may be mounted."""
    import subprocess

    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount")
    try:
        run = Run(folder, keep=999)
        with pytest.raises(OutputError, match="cannot be written"):
            train_for_ever(run)
        last = run.state.step - 1
        assert run.checkpoints.newest().step == last > 3
        assert f"step-{run.state.step:08}" not in [path.name for path in run.checkpoints.folder.iterdir()]
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def test_a_manifest_is_readable_by_people(run):
    run.train(2, best=True)
    manifest = json.loads((run.checkpoints.path(2) / MANIFEST).read_text())
    assert manifest["state"]["step"] == 2
    assert set(manifest["files"]) == {
        *("model.safetensors", "weights.safetensors", "optimizer.bin", "random_states_0.pkl"),
    }


def test_a_checkpoint_of_another_version_is_refused(run):
    run.train(1)
    path = run.checkpoints.path(1) / MANIFEST
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format_version": 99}))
    with pytest.raises(TrainingError, match="format_version 99 is of another ramstrans"):
        read_whole(path.parent)
