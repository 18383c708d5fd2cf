"""Presets are what they say, and a configuration that does not fit is refused in one sentence, by the key written."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from listflow.data.errors import InputError
from listflow.data.schema import refusal
from listflow.pipeline.model.config import LinearHead, PrototypesHead, VerbalizerHead, reads_middle
from listflow.pipeline.pretraining.learner import AdaptConfig
from listflow.pipeline.run.config import ReviewConfig, RunConfig
from listflow.pipeline.run.presets import PRESETS, build_config

LAYERS = "must be all, top:N, or a list of layer numbers from 0 upward"
CASES: dict[str, tuple[dict[str, Any], str]] = {
    "stage kind": ({"stage": "houlsbi"}, "config key 'stage': unknown stage 'houlsbi'; did you mean 'houlsby'?"),
    "stage kind in a list": (
        {"stage": ["lora", {"kind": "bitfti"}]},
        "config key 'stage': unknown stage 'bitfti'; did you mean 'bitfit'?",
    ),
    "key of a stage": (
        {"stage": {"kind": "lora", "widht": 3}},
        "config key 'stage.widht': unknown key 'widht'; did you mean 'width'?",
    ),
    "key of no such stage": (
        {"stage": {"kind": "bitfit", "width": 3}},
        "config key 'stage.width': unknown key 'width'; use one of: layers, kind.",
    ),
    "key of another kind of stage": (
        {"stage": {"kind": "ptuning", "tokenz": 3}},
        "config key 'stage.tokenz': unknown key 'tokenz'; did you mean 'tokens'?",
    ),
    "second of a list": (
        {"stage": ["mam", {"kind": "lora", "widht": 3}]},
        "config key 'stage.1.widht': unknown key 'widht'; did you mean 'width'?",
    ),
    "limit of a stage": (
        {"stage": {"kind": "lora", "width": 0}},
        "config key 'stage.width': must be greater than or equal to 1 (got 0).",
    ),
    "limit in a list": (
        {"stage": ["lora", {"kind": "mam", "width": 5000}]},
        "config key 'stage.1.width': must be less than or equal to 4096 (got 5000).",
    ),
    "layers": ({"stage": {"layers": "top:0"}}, f"config key 'stage.layers': {LAYERS} (got 'top:0')."),
    "layer numbers": ({"stage": {"layers": [-1]}}, f"config key 'stage.layers': {LAYERS} (got [-1])."),
    "middle layer under a prompt": (
        {"stage": "list", "head": {"kind": "prototypes", "middle": 0.5}},
        "head.middle is of the text face; set it to 0, or face to text.",
    ),
    "combination": (
        {"stage": {"kind": "list", "composition": "gated"}},
        "config key 'stage': composition gated is the softmax of a prefix; use add or scaled.",
    ),
    "combination in a list": (
        {"stage": ["bitfit", {"kind": "list", "scale": 2.0}]},
        "config key 'stage.1': scale and learned_scale belong to the scaled composition.",
    ),
    "combination of stages": (
        {"stage": ["ptuning", "soft_prompt"]},
        "config key 'stage': two stages bring pseudo tokens; a prompt has those of one.",
    ),
    "two sets of biases": (
        {"stage": ["bitfit", "bitfit"]},
        "config key 'stage': two stages are bitfit; a layer has one set of bias vectors.",
    ),
    "no stage beside one": (
        {"stage": ["none", "lora"]},
        "config key 'stage': stage none stands alone; leave it out of the list.",
    ),
    "one place twice": (
        {"stage": {"kind": "list", "place": ["ffn_output", "ffn_output"]}},
        "config key 'stage': place names one place twice.",
    ),
    "no stage": ({"stage": []}, "config key 'stage': must have at least 1 item, not 0 (got [])."),
    "item that is no stage": ({"stage": [3]}, "config key 'stage.0': must hold keys with values (got 3)."),
    "head kind": ({"head": "lineer"}, "config key 'head.kind': unknown kind 'lineer'; did you mean 'linear'?"),
    "key of a head": (
        {"head": {"kind": "ytuning", "vector": 1}},
        "config key 'head.vector': unknown key 'vector'; did you mean 'vectors'?",
    ),
    "combination of a head": (
        {"head": {"kind": "ytuning", "width": 128, "heads": 3}},
        "config key 'head': width 128 cannot be divided among 3 heads.",
    ),
    "centre of a frozen head": (
        {"head": {"trained": False, "centre": True}},
        "config key 'head': centre moves the bias of the head, which trained=false leaves alone; choose one of them.",
    ),
    "section": ({"studnt": {}}, "config key 'studnt': unknown key 'studnt'; did you mean 'student'?"),
    "key of a section": (
        {"student": {"stps": 1}},
        "config key 'student.stps': unknown key 'stps'; did you mean 'steps'?",
    ),
    "limit of a section": (
        {"rounds": {"count": -1}},
        "config key 'rounds.count': must be greater than or equal to 0 (got -1).",
    ),
    "choice": (
        {"pseudo": {"teachers": "none"}},
        "config key 'pseudo.teachers': must be 'last' or 'all' (got 'none').",
    ),
    "item of a list": (
        {"data": {"unlabelled": ["a.csv", 3]}},
        "config key 'data.unlabelled.1': must be a valid string (got 3).",
    ),
    "no section": ({"student": 3}, "config key 'student': must hold keys with values (got 3)."),
    "long value": (
        {"seed": "x" * 99},
        f"config key 'seed': must be a valid integer, unable to parse string as an integer (got '{'x' * 56}...).",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_the_key_and_the_problem_are_said_in_one_sentence(case: str) -> None:
    overlay, sentence = CASES[case]
    with pytest.raises(InputError) as raised:
        build_config("fast", overlay)
    assert str(raised.value) == sentence


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"stps": 3}, "config key 'stps': unknown key 'stps'; did you mean 'steps'?"),
        ({"columns": {"txt": "a"}}, "config key 'columns.txt': unknown key 'txt'; did you mean 'text'?"),
    ],
)
def test_an_adaptation_is_refused_likewise(values: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValidationError) as raised:
        AdaptConfig.model_validate(values)
    assert str(refusal(raised.value, AdaptConfig)) == sentence


def test_a_value_of_the_head_is_one_of_the_default_head() -> None:
    assert build_config("fast", {"head": {"trained": False}}).head == VerbalizerHead(trained=False)
    assert build_config("fast", {"head": "linear"}, {"head": {"pool": "first"}}).head == LinearHead(pool="first")
    with pytest.raises(InputError, match="leaves nothing to train"):
        build_config("fast", {"stage": "none", "head": {"trained": False}})


def test_the_fast_preset_suits_a_list_as_it_suits_one_stage() -> None:
    both = build_config("fast", {"stage": ["prefix", {"kind": "lora", "layers": "all"}, "bitfit"]})
    assert [getattr(stage, "layers", "") for stage in both.stage] == ["top:1", "all", "top:1"]
    alone, beside = (build_config("fast", {"stage": stage}) for stage in ("ptuning", ["lora", "ptuning"]))
    assert (beside.teacher, beside.student, beside.rounds) == (alone.teacher, alone.student, alone.rounds)
    assert alone.teacher != both.teacher
    released = build_config("released", {"stage": ["prefix", "lora"]})
    assert [getattr(stage, "layers", "") for stage in released.stage] == ["all", "all"]


def test_the_fast_preset_reads_the_middle_layer_on_the_text_face_alone() -> None:
    both, text = build_config("fast"), build_config("fast", {"head": "prototypes"})
    assert both.second is not None
    assert (both.second.head, text.head) == (PrototypesHead(middle=0.5), PrototypesHead(middle=0.5))
    assert build_config("fast", {"head": "prototypes", "stage": "list"}).head == PrototypesHead()
    assert build_config("fast", {"second": {"face": "text"}, "stage": "lora"}).second == both.second
    released = build_config("released", {"second": {"face": "text"}})
    assert released.second is not None
    assert not reads_middle(released.second.head)


def test_without_a_second_view_the_fast_preset_is_that_of_its_stage() -> None:
    assert build_config("fast", {"second": None}) == build_config("fast", {"stage": "list"})


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_are_valid_and_survive_json(preset: str) -> None:
    config = build_config(preset)
    assert RunConfig.model_validate_json(config.model_dump_json()) == config


def test_released_preset_is_what_the_public_script_does() -> None:
    config = build_config("released")
    assert (config.teacher.learning_rate, config.teacher.epochs, config.teacher.batch) == (5e-6, 50, 4)
    assert (config.student.learning_rate, config.student.steps, config.student.batch) == (1e-4, 1000, 16)
    assert (config.student.warmup, config.student.tail_epochs, config.stage[0].width) == (0.6, 50, 128)
    assert (config.stage[0].init_std, config.reweight.eps, config.pseudo.confidence) == (2e-4, 0.2, 0.0)
    published = build_config("published")
    assert (published.teacher.epochs, published.stage[0].init_std, published.pseudo.confidence) == (400, 0.02, 0.8)


@pytest.mark.parametrize("overlay", [{"studnt": {}}, {"student": {"stps": 1}}, {"rounds": {"count": -1}}])
def test_unknown_keys_and_bad_values_name_the_key(overlay: dict[str, object]) -> None:
    with pytest.raises(InputError, match=r"config key '(studnt|student\.stps|rounds\.count)'"):
        build_config("fast", overlay)


def test_which_rounds_ask() -> None:
    def asking(count: int, **values: object) -> list[int]:
        return [n for n in range(1, count + 1) if ReviewConfig(**{"rows": 1, **values}).asks(n, count)]

    assert asking(3) == [1]
    assert asking(3, rounds="all") == [1, 2]
    assert asking(4, rounds=[1, 3]) == [1, 3]
    assert asking(3, rounds="all", rows=0) == []
    for rounds in ({"count": 1}, {"count": 2}):
        with pytest.raises(InputError, match=r"round \d of \d cannot ask for a review"):
            build_config("fast", {"rounds": rounds, "review": {"rows": 1, "rounds": [rounds["count"]]}})
    with pytest.raises(InputError, match=r"review\.rounds.*must be first, all"):
        build_config("fast", {"review": {"rounds": "last"}})
