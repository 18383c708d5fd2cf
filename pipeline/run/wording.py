"""What was trained, by the name that a person would use, and figures as people read them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from listflow.data.errors import shortened
from listflow.pipeline.model.config import AnyHead
from listflow.pipeline.stages.config import KINDS, AnyStage, Unified
from listflow.pipeline.stages.presets import STAGE_PRESETS

if TYPE_CHECKING:
    from listflow.pipeline.method.metrics import Curve, Estimate
    from listflow.pipeline.storage.lineage import Lineage, Range, Slide, Step

# A unified stage that differs from a preset in one of these is another thing, not that preset with other values.
_NATURE = ("form", "place", "insertion", "composition")
_UNSAID = {"decoder"}  # a digest, which tells a reader nothing
LONGEST = 40
# What a figure is called wherever a person reads it, and what it means in a clause: accuracies, shares and the
# calibration error are in percent, kappa and effective rows plain numbers.
ACCURACY, MACRO_F1, CALIBRATION_ERROR = "accuracy", "macro F1", "calibration error"
KAPPA, PSEUDO_ROWS, CONFIDENCE = "kappa", "pseudo rows", "mean confidence"
ZERO_WEIGHTS, EFFECTIVE_ROWS, UNIFORM_STEPS = "zero weights", "effective rows", "steps with uniform weights"
MEANS = {
    CALIBRATION_ERROR: "by how much confidence and accuracy differ, 0 % is best; of final models, once cooled",
    KAPPA: "how alike the student and its teacher label unlabelled texts, 1 is equal and 0 is chance",
    PSEUDO_ROWS: "unlabelled texts that the teacher labelled",
    CONFIDENCE: "the teacher's, of these labels",
    ZERO_WEIGHTS: "share of the pseudo rows that the meta weights switch off",
    EFFECTIVE_ROWS: "how many rows of a batch count, the effective sample size (ESS) by Kish's formula",
    UNIFORM_STEPS: "steps in which no row would have helped, so that all weighed the same",
}
# Of a doubling of the labels: the least gain that is worth the work, and the largest error that tells.
WORTH_IT, WORTH_TELLING = 0.01, 0.03
Named = tuple[int, tuple[str, ...]]


def name_of(given: Sequence[AnyStage]) -> str:
    """``mam``, ``prefix + bitfit``, ``list (width 16, layers top:1)``: the names with the fewest differences."""
    return " + ".join(_named(tuple(given))[1])


def name_of_head(head: AnyHead) -> str:
    """``verbalizer``, ``linear (pool mask)``: its kind, and what differs from its defaults."""
    return _with_values(head.kind, _different(head, _defaults(type(head))))


def trained(stage: str, head: str, trainable: int, total: int) -> str:
    """``stage lora, head verbalizer, 208,000 trainable of 22.7 M``."""
    return f"stage {stage}, head {head}, {trainable:,} trainable of {_rounded(total)}"


def percent(share: float | None) -> str:
    """``66.1 %`` for 0.661, and a dash for None."""
    return "-" if share is None else f"{100 * share:.1f} %"


def points(after: float | None, before: float | None) -> str:
    """``+0.6`` for 0.876 after 0.870: a change in percentage points with its sign, and a dash where one is unknown."""
    # What is shown as equal has not changed, and has no sign of its own.
    return "-" if after is None or before is None else f"{round(100 * (after - before), 1) or 0.0:+.1f}"


def explained(*names: str) -> str:
    """``Kappa: how alike ....``, one sentence for each of ``names``, for what stands below or above a table."""
    return " ".join(f"{capitalised(name)}: {MEANS[name]}." for name in names)


def interval(found: Estimate | Range) -> str:
    """``76.5 % (64.5 to 88.4 %)``: an estimate of accuracy with its 90 % interval."""
    return f"{percent(found.accuracy)} ({100 * found.low:.1f} to {percent(found.high)})"


def accuracy_told(measured: float | None, found: Estimate | None) -> str:
    """What is known of a model's accuracy, before ``from ...``: on test rows, else by the labels, else nothing."""
    if measured is not None:
        return f"{percent(measured)} accuracy"
    return f"an estimated accuracy of {interval(found)}" if found else "accuracy unknown without test rows"


def estimate_told(found: Estimate) -> str:
    """A sentence: the estimate, what it is of, and what it is from."""
    return (
        f"Estimated from the labels: {interval(found)} accuracy on texts like the labelled ones, the range with 90 % "
        f"certainty; {found.right} of {found.rows} held-out rows were right without their own label, which few rows "
        "can be by luck, so the estimate is drawn towards half."
    )


def curve_told(found: Curve) -> str:
    """A sentence on what more labels would bring, and how to get those that tell the most."""
    sizes = " > ".join(map(str, found.labelled))
    shares = " > ".join(percent(each) for each in found.accuracy)
    told = f"Labels and names alone, text view: {shares} of held-out rows right with {sizes} labels; the last doubling "
    brought = f"brought {100 * found.gain:+.1f} points ({100 * found.error:.1f})"
    if found.gain > max(found.error, WORTH_IT):
        return f"{told}{brought}, so label more: `--set review.rows=20` asks for the rows that tell the most."
    if found.error > WORTH_TELLING:
        return f"{told}{brought}: too few rows to tell whether more would help."
    return f"{told}{brought}, so more labels alone are not likely to change much."


def slide_told(found: Lineage, beside: str = "") -> str:
    """A sentence where a lineage slides, and what to do; empty where it does not. ``beside`` begins a run's path."""
    slide, best = found.slide, found.best
    if slide is None or best is None:
        return ""
    first = found.steps[0]
    of = f"on the {found.last.test_rows:,} test rows" if found.last.accuracy is not None else "by the labels"
    begun = "where it began" if best is first else "its best"
    if best is not first and first in found.comparable:
        begun += f" (it began with {_reached(first)})"
    return (
        f"The lineage slides: {_reached(found.last)} {of}, {slide.points:.1f} points below the {_reached(best)} of "
        f"{best.run}, {begun}; {_chance(slide)}; go back with `listflow run --continue {beside}{best.run}`, or label "
        "rows that tell the most with `--set review.rows=20`."
    )


def lineage_told(found: Lineage) -> list[str]:
    """Sentences on what of a lineage cannot be compared, or is not known."""
    told, others = [], [step.run for step in found.steps if step not in found.comparable and step is not found.last]
    if others:
        what = f"{_listed(others)} cannot be compared with {found.last.run}: measured on other test rows, or on none."
        told.append(what)
    return [*told, *([capitalised(found.ended)] if found.ended else [])]


def slid(found: Lineage | None, is_done: bool = True) -> str:
    """``slides, 3.5 points below tickets``; else which run of a lineage it is, and nothing without one.

    Of a run that is not done, ``found`` ends before it.
    """
    if found is None or not found.steps:
        return ""
    if not is_done:
        return f"run {len(found.steps) + 1}"
    if found.slide is None or found.best is None:
        return f"run {len(found.steps)}" if len(found.steps) > 1 else ""
    return f"slides, {found.slide.points:.1f} points below {found.best.run}"


def _reached(step: Step) -> str:
    return percent(step.range.accuracy if step.range else None)


def _chance(slide: Slide) -> str:
    if slide.error is None:
        return "the 90 % intervals of both do not meet, which is more than chance allows"
    rows = "over the same rows" if slide.is_paired else "at most"
    words = "more than chance allows" if slide.is_sure else "chance alone may do that"
    often = f", but {slide.runs} runs in a row are below" if slide.runs > 1 and not slide.is_sure else ""
    return f"{words} (a standard error is {slide.error:.1f} points {rows}){often}"


def _listed(names: Sequence[str]) -> str:
    """Names of runs, those in the middle of many left out."""
    few = names if len(names) <= 3 else [names[0], "...", names[-1]]
    return ", ".join(few)


def decimals(value: float | None, places: int = 2) -> str:
    """``value`` with ``places`` decimals, and a dash for None."""
    return "-" if value is None else f"{value:.{places}f}"


def duration(seconds: float) -> str:
    """``48 s``, ``3 min 05 s`` or ``2 h 14 min``."""
    minutes, rest = divmod(round(seconds), 60)
    if not minutes:
        return f"{rest} s"
    return f"{minutes} min {rest:02} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"


def capitalised(words: str) -> str:
    """``words`` with its first letter in upper case, and the others as they are."""
    return words[:1].upper() + words[1:]


def _named(given: tuple[AnyStage, ...]) -> Named:
    """(the number of differences, the names), the fewest of both; presets of several stages are tried everywhere."""
    if not given:
        return 0, ()
    found = []
    for name, parts in _PRESETS.items():
        ours = given[: len(parts)]
        if len(ours) == len(parts) and all(map(_same_sort, ours, parts)):
            changes = _common([_different(*pair) for pair in zip(ours, parts, strict=True)])
            if changes is not None:
                count, names = _named(given[len(parts) :])
                found.append((count + len(changes), (_with_values(name, changes), *names)))
    if not found:
        count, names = _named(given[1:])
        changes = _different(given[0], _defaults(type(given[0])))
        return count + len(changes), (_with_values(given[0].kind, changes), *names)
    return min(found, key=lambda each: (each[0], len(each[1])))


def _same_sort(one: AnyStage, values: dict[str, Any]) -> bool:
    nature = _NATURE if isinstance(one, Unified) else ()
    return one.kind == values["kind"] and all(getattr(one, key) == values[key] for key in nature)


def _different(one: BaseModel, values: dict[str, Any]) -> dict[str, Any]:
    return {key: getattr(one, key) for key in values if key not in _UNSAID and getattr(one, key) != values[key]}


def _defaults(kind: type[BaseModel]) -> dict[str, Any]:
    return {key: field.default for key, field in kind.model_fields.items()}


def _whole(preset: dict[str, Any]) -> dict[str, Any]:
    """All values that a part of a preset stands for; never validated, for some need more than they say themselves."""
    given = {key: tuple(value) if isinstance(value, list) else value for key, value in preset.items()}
    return _defaults(KINDS[preset.get("kind", "unified")]) | given


def _common(changes: list[dict[str, Any]]) -> dict[str, Any] | None:
    """What all parts of a preset were given alike, as values over a preset are; None where they differ."""
    return changes[0] if all(each == changes[0] for each in changes) else None


def _with_values(name: str, changes: dict[str, Any]) -> str:
    return f"{name} ({', '.join(f'{key} {_spelled(value)}' for key, value in changes.items())})" if changes else name


def _spelled(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, tuple):
        return "+".join(str(item) for item in value)
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return shortened(text, LONGEST)


def _rounded(count: int) -> str:
    for size, unit in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return str(count)


# The plainest first: it wins where two fit alike.
_PRESETS = {
    name: [_whole(part) for part in parts]
    for name, parts in sorted(STAGE_PRESETS.items(), key=lambda preset: sum(map(len, preset[1])))
}
