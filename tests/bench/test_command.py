import torch

from ramstrans.bench import command
from ramstrans.bench.config import BenchConfig


def test_threads_are_set_before_anything_is_measured(tmp_path, monkeypatch):
    seen, before = [], torch.get_num_threads()
    monkeypatch.setattr(
        command, "run_cases", lambda *_args, **_options: seen.append(torch.get_num_threads()) or []
    )
    try:
        command.run_bench(BenchConfig(threads=before + 1, device="cpu"), tmp_path)
    finally:
        torch.set_num_threads(before)
    assert seen == [before + 1]


def test_the_default_output_is_a_new_folder_here():
    assert command.default_output().parts[0].startswith("bench-20")
