"""Which way of multiplying is taken, and what a machine says that lacks one."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from transformers.activations import ACT2FN

from listflow.data.errors import InputError
from listflow.pipeline.model import arithmetic
from listflow.pipeline.model.arithmetic import check_here, fastest, is_gelu, map_of


def test_the_fastest_way_depends_on_what_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arithmetic, "packs", lambda: True)
    assert [fastest("bfloat16", "cpu"), fastest("float32", "cpu"), fastest("bfloat16", "cuda")] == [
        "packed", "unpadded", "padded"
    ]  # fmt: skip
    monkeypatch.setattr(arithmetic, "packs", lambda: False)
    assert fastest("bfloat16", "cpu") == "unpadded"


def test_a_machine_without_a_way_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arithmetic, "packs", lambda: False)
    monkeypatch.setattr(arithmetic, "quantises", lambda: False)
    check_here("padded")
    check_here("unpadded")
    check_here("padded", "cuda")
    with pytest.raises(InputError, match="'unpadded' arithmetic are made on a processor, and this model is on 'cuda'"):
        check_here("unpadded", "cuda")
    with pytest.raises(InputError, match="packed bfloat16 weights, which this processor"):
        check_here("packed")
    with pytest.raises(InputError, match="leave --int8 out"):
        check_here("int8")


def test_a_torch_without_these_names_has_no_such_way(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(*_: object) -> None:
        raise AttributeError

    monkeypatch.setattr(arithmetic, "_Packed", absent)
    monkeypatch.setattr(arithmetic, "_Int8", absent)
    assert not arithmetic.packs.__wrapped__()
    assert not arithmetic.quantises.__wrapped__()


def test_wrong_numbers_are_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    class Off:
        def __init__(self, own: nn.Linear, gelu: bool = False) -> None:
            self.own = own

        def __call__(self, x: torch.Tensor, other: torch.Tensor | None = None) -> torch.Tensor:
            return self.own(x) + 1

    monkeypatch.setattr(arithmetic, "_Packed", Off)
    monkeypatch.setattr(arithmetic, "_Int8", Off)
    assert not arithmetic.packs.__wrapped__()
    assert not arithmetic.quantises.__wrapped__()


@pytest.mark.parametrize("way", ["unpadded", "packed"])
def test_a_map_ends_with_its_activation_or_a_sum(way: arithmetic.Arithmetic) -> None:
    if way == "packed" and not arithmetic.packs():
        pytest.skip("this processor multiplies no packed bfloat16")
    own = nn.Linear(32, 48).to(torch.bfloat16).requires_grad_(False)
    x, other = torch.randn(5, 32).bfloat16(), torch.randn(5, 48).bfloat16()
    close = {"rtol": 0.02, "atol": 0.02}
    torch.testing.assert_close(map_of(own, way, {})(x), own(x), **close)
    torch.testing.assert_close(map_of(own, way, {})(x, other), own(x) + other, **close)
    torch.testing.assert_close(map_of(own, way, {}, F.gelu)(x), F.gelu(own(x)), **close)
    torch.testing.assert_close(map_of(own, way, {}, F.relu)(x), F.relu(own(x)), **close)


def test_the_exact_gelu_is_known_in_its_forms() -> None:
    assert all(map(is_gelu, (F.gelu, nn.GELU(), ACT2FN["gelu"])))
    assert not any(map(is_gelu, (None, F.relu, nn.GELU("tanh"), ACT2FN["gelu_new"], ACT2FN["gelu_pytorch_tanh"])))
