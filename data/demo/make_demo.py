"""Write labelled.jsonl, unlabelled.jsonl and test.jsonl of the demo task: synthetic support messages.

Every message is made up from the phrase banks in phrases.toml with one seed, so the same bytes come out
each time. A third of the core phrases is kept out of the labelled rows: only unlabelled text shows them
before the test. The unlabelled rows carry no label.
Usage: python make_demo.py [FOLDER]   (default: the folder of this script)
"""

import json
import random
import re
import sys
import tomllib
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
BANK: dict[str, Any] = tomllib.loads((HERE / "phrases.toml").read_text(encoding="utf-8"))
LABELS: list[str] = list(BANK["classes"])

SEED = 7
ROWS_PER_CLASS = {"labelled": 12, "unlabelled": 480, "test": 100}
MIN_WORDS, MAX_WORDS = 5, 35
HOLD_OUT_EVERY = 3  # every third core phrase never appears in a labelled row
IMPLIED_RATE = 0.19  # rows whose topic is only hinted at
SECOND_RATE = 0.6  # rows that say a second thing about their topic
ASIDE_RATE = 0.18  # rows that mention another class in passing
NEUTRAL_RATE = 0.15  # rows with a remark about nothing in particular
TYPO_RATE = 0.2  # rows with a mistyped word

# voice: (weight, chance of an opener, chance of a closer)
VOICES = {
    "terse": (3, 0.05, 0.05),
    "chatty": (2, 0.9, 0.6),
    "angry": (2, 0.2, 0.6),
    "polite": (2, 0.9, 0.9),
    "foreign": (1, 0.5, 0.5),
}
JOINS = (
    "{aside}, but {core}",
    "{aside} but {core}",
    "{core}, even though {aside}",
    "{core}. {aside} though",
    "{core}. Otherwise {aside}",
    "{aside}. However {core}",
    "{aside}. Still, {core}",
    "{core} ({aside})",
)
ARTICLES = re.compile(r"\b(?:the|a|an) ", re.IGNORECASE)

Row = dict[str, str]


def fill(text: str, rng: random.Random) -> str:
    """Resolve [a|b] choices and {slots}, slots inside slots too; no value comes twice."""
    text = re.sub(r"\[([^\]]+)\]", lambda m: rng.choice(m[1].split("|")), text)
    while found := re.search(r"\{(\w+)\}", text):
        value = slot(found[1], rng)
        if value not in text:
            text = text.replace(found[0], value, 1)
    return text


def slot(name: str, rng: random.Random) -> str:
    """One value for a slot: a drawn number or an entry of its bank."""
    if name == "order":
        return rng.choice(["order {}", "order #{}", "#{}"]).format(rng.randint(10000, 99999))
    if name == "amount":
        return rng.choice(["${}", "{} euros", "£{}", "{}.99"]).format(rng.randint(4, 240))
    if name == "count":
        return str(rng.randint(2, 30))
    if name == "ticket":
        return str(rng.randint(100, 9999))
    return str(rng.choice(BANK["slots"][name]))


def core_phrase(label: str, held_out: bool, rng: random.Random) -> str:
    """A phrase that carries the label; held-out phrases take part only where allowed."""
    phrases = BANK["classes"][label]["implied" if rng.random() < IMPLIED_RATE else "plain"]
    allowed = [phrase for i, phrase in enumerate(phrases, 1) if held_out or i % HOLD_OUT_EVERY]
    return str(rng.choice(allowed))


def body(label: str, held_out: bool, rng: random.Random) -> str:
    """The core phrase with what surrounds it: a second one, a mention of another class, a neutral remark."""
    text = core_phrase(label, held_out, rng)
    if rng.random() < SECOND_RATE:
        text = f"{text}. {core_phrase(label, held_out, rng)}"
    if rng.random() < ASIDE_RATE:
        other = rng.choice([name for name in LABELS if name != label])
        text = rng.choice(JOINS).replace("{core}", text)
        text = text.replace("{aside}", rng.choice(BANK["classes"][other]["aside"]))
    if rng.random() < NEUTRAL_RATE:
        pair = [text, rng.choice(BANK["neutral"])]
        rng.shuffle(pair)
        text = ". ".join(pair)
    return text


def sentences(text: str) -> str:
    """Start every sentence with a capital letter."""
    return re.sub(r"(^|[.?!] )([a-z])", lambda m: m[1] + m[2].upper(), text)


def mistype(text: str, rng: random.Random) -> str:
    """Swap, drop or double a letter inside one longer word."""
    words = text.split(" ")
    long = [i for i, word in enumerate(words) if word.isalpha() and len(word) > 4]
    if not long:
        return text
    i, kind = rng.choice(long), rng.choice(["swap", "drop", "double"])
    word, at = words[i], rng.randrange(1, len(words[i]) - 2)
    middle = {"swap": word[at + 1] + word[at], "drop": word[at + 1], "double": word[at] * 2 + word[at + 1]}[kind]
    words[i] = word[:at] + middle + word[at + 2 :]
    return " ".join(words)


def speak(text: str, voice: str, rng: random.Random) -> str:
    """Give the message the habits of its voice."""
    if voice == "terse":
        return text.lower().replace(",", "")
    if voice == "angry":
        return text.upper() + "!!" if rng.random() < 0.2 else re.sub(r"[.?]?$", rng.choice(["!", "!!", "???"]), text)
    if voice == "foreign":
        return ARTICLES.sub("", text).replace(" does not ", " not ")
    return text if text.endswith("?") or rng.random() < 0.3 else text + "."


def message(label: str, held_out: bool, rng: random.Random) -> str:
    """One full message of the class."""
    weights = [weight for weight, _, _ in VOICES.values()]
    voice = rng.choices(list(VOICES), weights)[0]
    _, greets, signs = VOICES[voice]
    parts = [body(label, held_out, rng)]
    if rng.random() < greets:
        parts.insert(0, rng.choice(BANK["openers"]) + rng.choice([",", ".", " -"]))
    if rng.random() < signs:
        parts[-1] += "."
        parts.append(rng.choice(BANK["angry_closers" if voice == "angry" else "closers"]))
    text = sentences(fill(" ".join(parts), rng))
    if rng.random() < TYPO_RATE:
        text = mistype(text, rng)
    return speak(text, voice, rng)


def build() -> dict[str, list[Row]]:
    """All rows of all files with their true labels; no text comes twice."""
    rng, seen, files = random.Random(SEED), set[str](), dict[str, list[Row]]()
    for name, per_class in ROWS_PER_CLASS.items():
        rows = [{"text": fresh(label, name, rng, seen), "label": label} for label in LABELS for _ in range(per_class)]
        rng.shuffle(rows)
        files[name] = rows
    return files


def fresh(label: str, file: str, rng: random.Random, seen: set[str]) -> str:
    """A message within the length limits whose words were not used before."""
    while True:
        text = message(label, file != "labelled", rng)
        key = " ".join(re.findall(r"\w+", text.lower()))
        if MIN_WORDS <= len(text.split()) <= MAX_WORDS and key not in seen:
            seen.add(key)
            return text


def write(folder: Path) -> None:
    """Write the three files; unlabelled rows keep their text only."""
    for name, rows in build().items():
        kept = [{"text": row["text"]} for row in rows] if name == "unlabelled" else rows
        lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in kept]
        (folder / f"{name}.jsonl").write_bytes("".join(lines).encode("utf-8"))


if __name__ == "__main__":
    write(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE)
