"""The file that a training outside the rounds goes on from: exact, or not believed."""

from pathlib import Path

import torch
from torch import nn

from listflow.pipeline.pretraining.steps import restore_steps, save_steps


def trained() -> tuple[dict[str, nn.Parameter], torch.optim.AdamW]:
    """Two parameters after one step."""
    parameters = {name: nn.Parameter(torch.arange(3.0) + offset) for name, offset in (("a", 0), ("b", 5))}
    optimiser = torch.optim.AdamW(parameters.values())
    sum(p.square().sum() for p in parameters.values()).backward()  # type: ignore[union-attr]
    optimiser.step()
    return parameters, optimiser


def fresh() -> tuple[dict[str, nn.Parameter], torch.optim.AdamW]:
    parameters = {name: nn.Parameter(torch.zeros(3)) for name in ("a", "b")}
    return parameters, torch.optim.AdamW(parameters.values())


def test_weights_and_moments_come_back(tmp_path: Path) -> None:
    parameters, optimiser = trained()
    save_steps(tmp_path / "step", 7, parameters, optimiser)
    again, restored = fresh()
    assert restore_steps(tmp_path / "step", again, restored) == 7
    for name, parameter in parameters.items():
        assert torch.equal(again[name], parameter)
        for key, value in optimiser.state[parameter].items():
            assert torch.equal(restored.state[again[name]][key], value)


def test_a_damaged_file_is_not_believed(tmp_path: Path) -> None:
    parameters, optimiser = trained()
    path = tmp_path / "step"
    save_steps(path, 7, parameters, optimiser)
    whole = path.read_bytes()
    for place in range(0, len(whole), 5):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        again, restored = fresh()
        assert restore_steps(path, again, restored) == 0
        assert not any(parameter.any() for parameter in again.values())
        assert not restored.state
    path.write_bytes(whole[:-1])
    assert restore_steps(path, *fresh()) == 0
