"""Several runs on one backbone: each labels as it does alone, and the backbone is in memory once."""

from __future__ import annotations

import json
import pickle
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pytest
import torch
from finished_views import PAIRS, committee_run, saved_backbone, sentence_files
from tiny import sentences, tiny_backbone, tiny_overlay, write_jsonl

from listflow.data.corpora.ingest import ingest
from listflow.data.errors import InputError
from listflow.data.task import Columns
from listflow.pipeline.backbone.backbone import Identity, Precision
from listflow.pipeline.backbone.batch import Encoded
from listflow.pipeline.backbone.text_face import TextFace
from listflow.pipeline.results.finished import Finished
from listflow.pipeline.results.outcome import publish
from listflow.pipeline.results.predictor import Predictor
from listflow.pipeline.results.predictors import Predictors
from listflow.pipeline.results.tables import write_tables
from listflow.pipeline.run.opening import open_run
from listflow.pipeline.run.presets import build_config
from listflow.pipeline.storage.checkpoint import new_folder, read_json, write_json
from listflow.pipeline.training.rounds import judge, prompt_tune, pseudo_label, train_student

TEXTS = ["w1 fine w2", "poor w3", "w4 w5 w6 w7 w8 w9 fine"]


def changed(final: Path, out: Path, **card: Any) -> Path:
    """A copy of a final folder with other facts on its card."""
    with new_folder(out / "final", {}) as folder:
        shutil.copy(final / "weights.safetensors", folder)
        write_json(folder / "model.json", read_json(final / "model.json") | card)
    return out


@pytest.fixture(scope="module")
def runs(tiny_files: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A run of task ``tiny``, and two more with other tensors: of task ``pairs`` with two texts, and of ``tiny``."""
    folder = tmp_path_factory.mktemp("runs")
    with open_run(build_config("fast", tiny_overlay(tiny_files, folder / "one"), {"rounds": {"count": 1}})) as run:
        prompt_tune(run)
        pseudo_label(run, 1)
        train_student(run, 1)
        judge(run, 1)
        publish(run, 1)
    final = folder / "one" / "final"
    task = read_json(final / "model.json")["task"]
    pairs = task | {
        "name": "pairs",
        "template": "{text_a} ? {mask} , {text_b}",
        "labels": {"no": "poor", "yes": "fine"},
    }
    return [folder / "one", changed(final, folder / "two", task=pairs), changed(final, folder / "three", task=task)]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    rows = sentences(9, 4, labelled=False)
    pairs = (
        {"text_a": row["text"], "text_b": f"w{i} plot", "for": ("tiny", "pairs")[i % 2]} for i, row in enumerate(rows)
    )
    return write_jsonl(tmp_path / "in.jsonl", [row | more for row, more in zip(rows, pairs, strict=True)])


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_backbone_is_in_memory_once(runs: list[Path]) -> None:
    predictors = Predictors.open(runs[:2])
    words = {p.model.encoder.get_input_embeddings().weight.data_ptr() for p in predictors.by_name.values()}
    assert len(words) == 1
    layers = {id(x) for p in predictors.by_name.values() for n, x in p.model.encoder.named_parameters() if "word" in n}
    assert len(layers) == 1
    frozen = [
        {x.data_ptr() for x in p.model.encoder.parameters() if not x.requires_grad} for p in predictors.by_name.values()
    ]
    assert frozen[0] == frozen[1]


def test_every_run_labels_every_row_as_it_does_alone(runs: list[Path], source: Path, tmp_path: Path) -> None:
    assert Predictors.open(runs[:2]).predict_file(str(source), tmp_path / "out.jsonl") == 9
    rows, given = read(tmp_path / "out.jsonl"), read(source)
    assert list(rows[0]) == [
        "row", "tiny.label", "tiny.p_negative", "tiny.p_positive", "pairs.label", "pairs.p_no", "pairs.p_yes",
    ]  # fmt: skip
    alone, pairs = (Predictor.open(run) for run in runs[:2])
    assert [row["tiny.label"] for row in rows] == alone.predict([row["text"] for row in given])
    soft = pairs.probabilities([(row["text_a"], row["text_b"]) for row in given])
    np.testing.assert_array_equal([row["pairs.p_yes"] for row in rows], soft[:, 1].astype(float))


def test_one_run_writes_what_it_always_wrote(runs: list[Path], source: Path, tmp_path: Path) -> None:
    Predictors.open(runs[:1]).predict_file(str(source), tmp_path / "a.csv")
    Predictor.open(runs[0]).predict_file(str(source), tmp_path / "b.csv")
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()
    assert pyarrow.csv.read_csv(tmp_path / "a.csv").column_names == ["row", "label", "p_negative", "p_positive"]


def test_a_row_is_labelled_by_the_run_that_it_names(
    runs: list[Path], source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("listflow.pipeline.results.predictors.ROWS_AT_ONCE", 4)
    seen: list[int] = []
    count = Predictors.open(runs[:2]).predict_file_by_task(
        str(source), tmp_path / "o.jsonl", "for", on_rows=seen.append
    )
    rows, given = read(tmp_path / "o.jsonl"), read(source)
    assert (count, seen) == (9, [4, 4, 1])
    assert [row["row"] for row in rows] == list(range(1, 10))
    assert [row["task"] for row in rows] == [row["for"] for row in given]
    alone, pairs = (Predictor.open(run) for run in runs[:2])
    for row, its in zip(rows, given, strict=True):
        of_pairs = its["for"] == "pairs"
        soft = pairs.probabilities([(its["text_a"], its["text_b"])]) if of_pairs else alone.probabilities([its["text"]])
        assert row.keys() == {"row", "task", "label", "confidence"}
        assert row["label"] == (pairs if of_pairs else alone).labels[soft.argmax()]
        assert row["confidence"] == pytest.approx(soft.max(), abs=1e-6)


@pytest.mark.parametrize(("value", "said"), [("tinny", r"'tinny' \(did you mean 'tiny'\?\)"), (None, "''")])
def test_an_unknown_task_is_named(runs: list[Path], tmp_path: Path, value: str | None, said: str) -> None:
    rows = [{"text": "w1", "for": "tiny"}, {"text": "w2", "for": value}]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(InputError, match=rf"in\.jsonl, row 2: unknown task {said}; the runs are tiny\."):
        Predictors.open(runs[:1]).predict_file_by_task(str(tmp_path / "in.jsonl"), tmp_path / "out.csv", "for")
    assert [p.name for p in tmp_path.iterdir()] == ["in.jsonl"]


def test_a_missing_task_column_names_its_option(runs: list[Path], source: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no column 'task'.*say --task-column NAME\."):
        Predictors.open(runs[:1]).predict_file_by_task(str(source), tmp_path / "out.csv", "task")


@pytest.mark.parametrize("count", [1, 2])
def test_no_file_is_written_over_the_texts_that_it_is_made_of(
    runs: list[Path], source: Path, tmp_path: Path, count: int
) -> None:
    predictors, before = Predictors.open(runs[:count]), source.read_bytes()
    (tmp_path / "link.jsonl").symlink_to(source)
    for out in (source, tmp_path / "link.jsonl", tmp_path / ".." / tmp_path.name / source.name):
        with pytest.raises(InputError, match=r"take the place of the texts in .*; choose another --output"):
            predictors.predict_file(str(source), out)
        with pytest.raises(InputError, match="take the place of the texts"):
            predictors.predict_file_by_task(str(source), out, "for")
    assert source.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl", "link.jsonl"]


def test_no_file_is_written_into_the_corpus_that_it_is_made_of(runs: list[Path], source: Path, tmp_path: Path) -> None:
    corpus = tmp_path / "tickets"
    shard = corpus / ingest(corpus, [str(source)], Columns()).manifest.shards[0].file
    before = shard.read_bytes()
    with pytest.raises(InputError, match="take the place of the texts"):
        Predictors.open(runs[:1]).predict_file(str(corpus), shard)
    assert shard.read_bytes() == before
    assert Predictors.open(runs[:1]).predict_file(str(corpus), tmp_path / "out.csv") == 9


def test_runs_of_one_task_go_by_their_folders(runs: list[Path], tmp_path: Path) -> None:
    predictors = Predictors.open([runs[0] / "final", runs[2], runs[1]])
    assert predictors.names == ["one", "three", "pairs"]
    assert Predictors.open(runs[::2]).predict(TEXTS)["one"] == Predictor.open(runs[0]).predict(TEXTS)
    same = shutil.copytree(runs[0], tmp_path / "one")
    with pytest.raises(InputError, match=r"would both be called 'one'; rename the folder of one\."):
        Predictors.open([runs[0], same])
    with pytest.raises(InputError, match="no run is given"):
        Predictors.open([])


@pytest.mark.parametrize(("key", "value"), [("name", "another"), ("checksum", "0" * 64), ("dtype", "bfloat16")])
def test_runs_of_other_backbones_are_refused(runs: list[Path], tmp_path: Path, key: str, value: str) -> None:
    card = read_json(runs[0] / "final" / "model.json")
    other = changed(runs[0] / "final", tmp_path / "other", backbone=card["backbone"] | {key: value})
    with pytest.raises(InputError, match=r"one \(.*and .*other \(.*trained on different backbones"):
        Predictors.open([runs[0], other])


@pytest.mark.parametrize("trained", ["fp32", "bf16"])
@pytest.mark.parametrize("loaded", ["fp32", "bf16"])
def test_a_backbone_that_changed_is_noticed_in_either_precision(
    runs: list[Path], tmp_path: Path, trained: Precision, loaded: Precision
) -> None:
    card = read_json(runs[0] / "final" / "model.json")["backbone"]
    for name, seed in (("same", 0), ("other", 9)):
        backbone = tiny_backbone(seed=seed)
        backbone.model.to(torch.bfloat16 if trained == "bf16" else torch.float32)
        identity = backbone.identity()
        model = changed(
            runs[0] / "final", tmp_path / f"{name}-model",
            backbone=card | {"precision": trained} | identity.model_dump(),
        )  # fmt: skip
        if name == "same":
            assert Finished.open(model).load_backbone(loaded).n_layers == 2
            continue
        with pytest.raises(InputError, match="is not the one this model was trained on"):
            Finished.open(model).load_backbone(loaded)


def test_a_record_of_an_earlier_version_is_read_as_far_as_it_goes(runs: list[Path]) -> None:
    """It does not say what its parameters round to, so another precision cannot be told apart, and is let be."""
    card = dict(read_json(runs[0] / "final" / "model.json")["backbone"])
    del card["rounded"]
    earlier, other = Identity.of(card), tiny_backbone(seed=9)
    assert tiny_backbone().identity().is_of(earlier)
    assert not other.identity().is_of(earlier)
    other.model.to(torch.bfloat16)
    assert other.identity().is_of(earlier)


@pytest.fixture(scope="module")
def committees(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Runs on one backbone: of the prompt alone, two of both views, of the text alone, and of both for pairs."""
    folder = tmp_path_factory.mktemp("committees")
    backbone = saved_backbone(folder / "backbone")
    both = ("prompt", "text")
    return [
        committee_run(folder / "prompt", backbone, ("prompt",), seed=1),
        committee_run(folder / "both", backbone, both, seed=2),
        committee_run(folder / "other", backbone, both, seed=3),
        committee_run(folder / "text", backbone, ("text",), seed=4),
        committee_run(folder / "pairs", backbone, both, PAIRS, seed=5),
    ]


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many texts each pass through a text face had."""
    found: list[int] = []
    embed = TextFace.embed

    def counted(self: TextFace, encoded: Encoded) -> torch.Tensor:
        found.append(len(encoded))
        return embed(self, encoded)

    monkeypatch.setattr(TextFace, "embed", counted)
    return found


def test_a_text_is_embedded_once_for_all_runs(
    committees: list[Path], source: Path, tmp_path: Path, passes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the last bit as each run by itself: the same chunks go through the same encoder."""
    monkeypatch.setattr("listflow.pipeline.results.predictors.ROWS_AT_ONCE", 4)
    monkeypatch.setattr("listflow.pipeline.results.predictor.ROWS_AT_ONCE", 4)
    predictors = Predictors.open(committees)
    assert predictors.names == ["prompt", "both", "other", "text", "pairs"]
    predictors.predict_file(str(source), tmp_path / "out.jsonl")
    assert passes == [*[4] * 3, *[4] * 3, *[1] * 3]  # single texts, and both texts of a pair
    rows = read(tmp_path / "out.jsonl")
    for run, name in zip(committees, predictors.names, strict=True):
        Predictor.open(run).predict_file(str(source), tmp_path / "alone.jsonl")
        alone = [
            {f"{name}.{key}": value for key, value in row.items() if key != "row"}
            for row in read(tmp_path / "alone.jsonl")
        ]
        assert [{key: value for key, value in row.items() if key.startswith(f"{name}.")} for row in rows] == alone
    passes.clear()
    single = Predictors.open(committees[:4])
    assert single.predict(TEXTS)["both"] == Predictor.open(committees[1]).predict(TEXTS)
    assert passes == [3, 3]  # for all of them, then for the run alone


def test_of_two_views_a_row_is_labelled_by_the_run_that_it_names(
    committees: list[Path], source: Path, tmp_path: Path, passes: list[int]
) -> None:
    predictors = Predictors.open([committees[1], committees[4]])
    assert predictors.names == ["mood", "pairs"]
    given = [row | {"for": "mood" if row["for"] == "tiny" else "pairs"} for row in read(source)]
    renamed = write_jsonl(tmp_path / "renamed.jsonl", given)
    predictors.predict_file_by_task(str(renamed), tmp_path / "out.jsonl", "for")
    assert sorted(passes) == [4, 4, 5]  # no text is embedded for a run that does not label it
    for row, its in zip(read(tmp_path / "out.jsonl"), given, strict=True):
        text = its["text"] if its["for"] == "mood" else (its["text_a"], its["text_b"])
        soft = predictors[its["for"]].probabilities([text])[0]
        assert row["label"] == predictors[its["for"]].labels[soft.argmax()]
        assert row["confidence"] == pytest.approx(soft.max(), abs=1e-6)


def test_runs_that_travelled_share_their_text_face_again(committees: list[Path], passes: list[int]) -> None:
    before = Predictors.open(committees[:4])
    after = pickle.loads(pickle.dumps(before))  # noqa: S301  (what this test itself pickled)
    assert len({id(predictor.backbone) for predictor in after.by_name.values()}) == 1
    passes.clear()
    assert after.predict(TEXTS) == before.predict(TEXTS)
    assert passes == [3, 3]


def test_a_face_that_reads_less_of_a_text_is_another_one(committees: list[Path], tmp_path: Path) -> None:
    card = read_json(committees[1] / "final" / "model.json")
    views = [view | {"max_length": 16} for view in card["views"]]
    short = changed(committees[1] / "final", tmp_path / "short", views=views)
    long = ["w1 fine " * 30]
    both = Predictors.open([committees[1], short])
    for name, run in (("both", committees[1]), ("short", short)):
        assert (both[name].logits(long) == Predictor.open(run).logits(long)).all()
    assert not np.allclose(both["both"].logits(long), both["short"].logits(long))


def test_a_face_that_reads_the_middle_layer_too_is_another_one(committees: list[Path], tmp_path: Path) -> None:
    backbone = Path(read_json(committees[1] / "final" / "model.json")["backbone"]["name"])
    deep = committee_run(tmp_path / "deep", backbone, middle=0.5)
    both = Predictors.open([committees[1], deep])
    for name, run in (("both", committees[1]), ("deep", deep)):
        assert (both[name].logits(TEXTS) == Predictor.open(run).logits(TEXTS)).all()


def test_another_text_face_is_refused(committees: list[Path], tmp_path: Path) -> None:
    """The parameters are the same, and the makers' files say another pooling."""
    backbone = saved_backbone(tmp_path / "backbone")
    run = committee_run(tmp_path / "run", backbone)
    prompt = committee_run(tmp_path / "prompt", backbone, ("prompt",))
    kept = pickle.dumps(Predictor.open(run))
    said = r"backbone '.*' makes other sentence embeddings .*; restore its sentence files \(modules\.json"
    sentence_files(backbone, {"pooling_mode_cls_token": True})
    alone = Predictor.open(prompt)
    with pytest.raises(InputError, match=said):
        Predictor.open(run)
    with pytest.raises(InputError, match=said):
        Predictors.open([prompt, run])
    arrived = pickle.loads(pickle.dumps(alone))  # noqa: S301  (what this test itself pickled)
    with pytest.raises(InputError, match=said):
        pickle.loads(kept)  # noqa: S301  (the same)
    assert (arrived.logits(TEXTS) == alone.logits(TEXTS)).all()
    card = read_json(committees[1] / "final" / "model.json")
    other = changed(committees[1] / "final", tmp_path / "other", backbone=card["backbone"] | {"text": "0" * 64})
    with pytest.raises(InputError, match="were trained on different backbones"):
        Predictors.open([committees[0], committees[1], other])


def test_texts_of_another_shape_than_the_task_asks_for_are_refused(committees: list[Path]) -> None:
    one, two = Predictor.open(committees[1]), Predictor.open(committees[4])
    with pytest.raises(InputError, match=r"^texts\[1\] has a second text where the task reads one; leave it out\.$"):
        one.predict([TEXTS[0], (TEXTS[1], "w9 good")])
    with pytest.raises(InputError, match=r"^texts\[0\] is one text where the task reads two; pass \(text, second text"):
        two.predict(TEXTS)
    with pytest.raises(InputError, match=r"^'pairs': texts\[0\] is one text where the task reads two; "):
        Predictors.open([committees[1], committees[4]]).predict(TEXTS)
    assert two.logits([(text, "") for text in TEXTS]).shape == (3, 3)


def test_what_is_no_list_of_texts_is_refused_by_all(committees: list[Path]) -> None:
    several, one = Predictors.open(committees[:2]), Predictor.open(committees[1])
    for texts in (TEXTS[0], None, b"x", {"text": TEXTS}, pd.DataFrame({"text": TEXTS})):
        for predict in (several.predict, one.predict, one.probabilities, one.logits):
            with pytest.raises(InputError, match=r"is given where a list of texts is read; "):
                predict(texts)  # type: ignore[operator]
    with pytest.raises(InputError, match=r"^'prompt': texts\[1\] is missing; pass a text, or '' for none\.$"):
        several.predict([TEXTS[0], float("nan")])  # type: ignore[list-item]
    assert several.predict(iter(TEXTS)) == several.predict(TEXTS)  # type: ignore[arg-type]
    assert one.predict(pd.Series(TEXTS)) == one.predict(TEXTS)


def test_no_texts_have_no_labels(committees: list[Path]) -> None:
    several = Predictors.open(committees)
    assert several.predict([]) == {name: [] for name in several.names}
    for predictor in several.by_name.values():
        assert predictor.logits([]).shape == predictor.probabilities([]).shape == (0, 3)
        assert predictor.probabilities([]).dtype == predictor.probabilities([("a", "")]).dtype


def test_a_run_and_files_below_the_home_folder(
    runs: list[Path], source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "run").symlink_to(runs[0])
    (tmp_path / "pairs").symlink_to(runs[1])
    assert Predictor.open("~/run").predict_file("~/in.jsonl", "~/out.jsonl") == 9
    several = Predictors.open(["~/run", "~/pairs"])
    several.predict_file("~/in.jsonl", "~/both.jsonl")
    several.predict_file_by_task("~/in.jsonl", "~/out.jsonl", "for")
    assert [len(read(tmp_path / name)) for name in ("out.jsonl", "both.jsonl")] == [9, 9]


def test_only_what_these_runs_wrote_is_replaced(runs: list[Path], source: Path, tmp_path: Path) -> None:
    out, several = tmp_path / "out.jsonl", Predictors.open(runs[:2])
    for _ in range(2):
        several.predict_file(str(source), out)
        several.predict_file_by_task(str(source), out, "for")
        Predictor.open(runs[0]).predict_file(str(source), out)
    with pytest.raises(InputError, match="is no earlier output of predict for this run"):
        Predictor.open(runs[1]).predict_file(str(source), out)
    assert Predictor.open(runs[1]).predict_file(str(source), out, force=True) == 9


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl", "parquet"])
def test_several_runs_replace_what_they_wrote_and_ask_for_the_rest(
    runs: list[Path], source: Path, tmp_path: Path, ending: str
) -> None:
    several, out, by_hand = Predictors.open(runs[:2]), tmp_path / f"out.{ending}", tmp_path / f"hand.{ending}"
    write_tables(by_hand, str(source), [pa.table({"row": [1], "tiny.label": ["negative"], "mine": ["kept"]})])
    Predictors.open([runs[0], runs[2]]).predict_file(str(source), tmp_path / f"other.{ending}")
    for before in (by_hand, tmp_path / f"other.{ending}"):
        kept = before.read_bytes()
        for write in (several.predict_file, partial(several.predict_file_by_task, task_column="for")):
            with pytest.raises(InputError, match=r"is no earlier output of predict for this run; .* give --force"):
                write(str(source), before)
            assert before.read_bytes() == kept
    several.predict_file(str(source), out)
    first = out.read_bytes()
    several.predict_file(str(source), out)
    several.predict_file(str(source), by_hand, force=True)
    assert out.read_bytes() == by_hand.read_bytes() == first
