"""What an exported model says of itself: its cards (listflow.json), and README code that needs no more than
transformers.

Each view is a block of code over the files of one folder, which reads texts as ``Prompt`` or ``TextFace`` does; a last
block mixes two of them as ``Committee`` does.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

from listflow.data.task import Task
from listflow.data.template import Part
from listflow.pipeline.backbone.prompt import Prompt
from listflow.pipeline.backbone.text_face import TextFace
from listflow.pipeline.model.label_names import label_words
from listflow.pipeline.storage.markdown import plain

CARD, VECTORS = "listflow.json", "label_vectors.safetensors"
AS_PROMPT, AS_TEXT = "prompt", "text"  # the folders of two views

OPENED = """\
with open("{file}", encoding="utf-8") as file:
    {name} = json.load(file)
"""
TOKENIZER = 'tokenizer = AutoTokenizer.from_pretrained("{folder}")\n'
MODEL = 'model = AutoModelForMaskedLM.from_pretrained("{folder}").eval()\n'
ENCODER = 'encoder = AutoModel.from_pretrained("{folder}"{without}).eval()\nvectors = load_file("{file}")\n'
TOKENS = """

def tokens(text):
    return tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
"""
ENCODE = """

def encode({given}):
    pieces, room = card["pieces"], card["room"]
{cut}"""
PROMPT = """

@torch.inference_mode()
def {name}(rows):
    batch = tokenizer.pad({{"input_ids": [encode(*row) for row in rows]}}, return_tensors="pt")
    at_mask = model(**batch).logits[batch["input_ids"] == tokenizer.mask_token_id]
    return at_mask[:, [label["token_id"] for label in card["labels"]]]{said}
"""
CUT_ONE = """\
    return pieces[0] + tokens({})[:room] + pieces[1]
"""
CUT_TWO = """\
    first, second = tokens({}), tokens({})
    first = first[: max(room // 2, room - len(second))]
    return pieces[0] + first + pieces[1] + second[: room - len(first)] + pieces[2]
"""
# As in ``data.task.MODIFIERS``, written out for someone who does not have them.
MODIFIED = {None: "{}", "drop_last": "{}[:-1]", "lower_first": "{0}[:1].lower() + {0}[1:]"}
TEXT = """

def embed(texts):
    first, last = tokenizer.cls_token_id, tokenizer.sep_token_id
    ids = [[first, *tokens({card}["pooling"]["prefix"] + {text})[: {card}["room"]], last] for text in texts]
    batch = tokenizer.pad({{"input_ids": ids}}, return_tensors="pt")
    seen = batch["attention_mask"].unsqueeze(-1)
{pooled}

@torch.inference_mode()
def {name}(rows):
{features}\
    return ((vectors["scale"] * features) @ vectors["weight"].T + vectors["bias"]){said}
"""
OF_LAST = """\
    hidden = encoder(**batch).last_hidden_state
    return {pooled}
"""
OF_LAST_AND_MIDDLE = """\
    said = encoder(**batch, output_hidden_states=True)
    hidden, middle = said.last_hidden_state, said.hidden_states[len(said.hidden_states) // 2]
    middle = (middle * seen).sum(1) / seen.sum(1)
    return torch.cat([{pooled}, F.normalize(middle, dim=-1)], dim=-1)
"""
POOLED = {
    "mean": "(hidden * seen).sum(1) / seen.sum(1)",
    "first": "hidden[:, 0]",
    "max": 'hidden.masked_fill(seen == 0, float("-inf")).amax(1)',
    "mean_sqrt": "(hidden * seen).sum(1) / seen.sum(1).sqrt()",
    "weighted": "(hidden * seen * seen.cumsum(1)).sum(1) / (seen * seen.cumsum(1)).sum(1)",
    "last": "hidden[torch.arange(len(hidden)), seen.sum((1, 2)) - 1]",
}
FEATURES_OF_ONE = """\
    found = F.normalize(embed([text for (text,) in rows]), dim=-1) - vectors["centre"]
    features = F.normalize(found, dim=-1)
"""
FEATURES_OF_PARTS = """\
    parts = zip(embed([text for (text,) in rows]).chunk(2, dim=-1), vectors["centre"].chunk(2))
    found = [F.normalize(F.normalize(part, dim=-1) - centre, dim=-1) for part, centre in parts]
    features = torch.cat([found[0], vectors["middle"] * found[1]], dim=-1) / (1 + vectors["middle"] ** 2) ** 0.5
"""
FEATURES_OF_TWO = """\
    u, v = embed([text for text, _ in rows]), embed([text for _, text in rows])
    cosine = F.cosine_similarity(u, v, dim=-1).unsqueeze(-1)
    features = torch.cat([cosine, (u - v).abs(), u * v, (u - v) / 2], dim=-1) - vectors["centre"]
"""
MIXED = """

def probabilities(rows):
    said = zip(views, [by_prompt(rows), by_text(rows)])
    return sum(view["weight"] * (z / view["temperature"]).log_softmax(-1) for view, z in said).softmax(-1)
"""
CLASSIFY = """

def classify(rows):
    return [card["labels"][best]["label"] for best in probabilities(rows).argmax(-1).tolist()]


print(classify([{example}]))
"""
SOFTMAX, COOLED = ".softmax(-1)", '.div(card["temperature"])'
README = """# {name}

{words} Run this in the folder:

```python
{code}```
"""
OF_PROMPT = (
    "A text classifier as a plain masked language model: the class is the label word that it finds likeliest at the "
    "mask.\nlistflow.json holds the labels, their words and the prompt."
)
OF_TEXT = (
    "A text classifier as a plain sentence encoder and a vector for every class.\nlistflow.json holds the labels, "
    f"{VECTORS} the vectors."
)
OF_BOTH = (
    "A text classifier of two views: a masked language model under a prompt (folder prompt), and a sentence encoder "
    "with\na vector for every class (folder text). listflow.json says how far each is believed."
)


def prompt_card(prompt: Prompt, tokens: Sequence[int], temperature: float = 1.0) -> dict[str, Any]:
    """listflow.json: the labels in class order with their words and ``tokens``, and the prompt around a text as ids.

    A ``temperature`` of the logits stands there where it is not 1.
    """
    task = prompt.task
    words = label_words(task, prompt.tokenizer)
    card = {
        "format": 1,
        "task": task.name,
        "template": task.template,
        "lower": task.lower,
        "max_length": prompt.max_length,
        "labels": [
            {"label": label, "word": word, "token_id": token}
            for label, word, token in zip(task.labels, words, tokens, strict=True)
        ],
        "pieces": pieces_around(prompt),
        "room": prompt.budget,
    }
    return card if temperature == 1 else {**card, "temperature": temperature}


def text_card(task: Task, face: TextFace) -> dict[str, Any]:
    """listflow.json: the labels in class order, and what stands before a text and how much of it is read."""
    return {
        "format": 1,
        "task": task.name,
        "max_length": face.max_length,
        "labels": [{"label": label} for label in task.labels],
        "pooling": face.pooling.model_dump(mode="json"),
        "room": face.max_length - 2,
    }


def prompt_readme(prompt: Prompt, temperature: float = 1.0) -> str:
    """README.md of a folder that holds a merged masked LM; it defines ``probabilities`` and ``classify`` of rows."""
    said = SOFTMAX if temperature == 1 else COOLED + SOFTMAX
    code = (
        "import json\n\nimport torch\nfrom transformers import AutoModelForMaskedLM, AutoTokenizer\n\n"
        + OPENED.format(file=CARD, name="card") + TOKENIZER.format(folder=".") + MODEL.format(folder=".")
        + TOKENS + _by_prompt(prompt, "probabilities", said) + classification(prompt.task)
    )  # fmt: skip
    return README.format(name=plain(prompt.task.name), words=OF_PROMPT, code=code)


def text_readme(task: Task, face: TextFace) -> str:
    """README.md of a folder that holds a plain encoder and label vectors; it defines the same two functions."""
    code = (
        "import json\n\nimport torch\nimport torch.nn.functional as F\nfrom safetensors.torch import load_file\n"
        "from transformers import AutoModel, AutoTokenizer\n\n"
        + OPENED.format(file=CARD, name="card") + TOKENIZER.format(folder=".") + _encoder(face, ".")
        + TOKENS + _by_text(task, face, "card", "probabilities", SOFTMAX) + classification(task)
    )  # fmt: skip
    return README.format(name=plain(task.name), words=OF_TEXT, code=code)


def readme_of_both(prompt: Prompt, face: TextFace) -> str:
    """README.md of a folder that holds both in folders of their own; it defines the same two functions."""
    task = prompt.task
    code = (
        "import json\n\nimport torch\nimport torch.nn.functional as F\nfrom safetensors.torch import load_file\n"
        "from transformers import AutoModel, AutoModelForMaskedLM, AutoTokenizer\n\n"
        + OPENED.format(file=CARD, name="views").replace(".load(file)", '.load(file)["views"]')
        + OPENED.format(file=f"{AS_PROMPT}/{CARD}", name="card")
        + OPENED.format(file=f"{AS_TEXT}/{CARD}", name="bare")
        + TOKENIZER.format(folder=AS_PROMPT) + MODEL.format(folder=AS_PROMPT) + _encoder(face, AS_TEXT)
        + TOKENS + _by_prompt(prompt, "by_prompt") + _by_text(task, face, "bare", "by_text") + MIXED
        + classification(task)
    )  # fmt: skip
    return README.format(name=plain(task.name), words=OF_BOTH, code=code)


def encoding(prompt: Prompt) -> str:
    """README code that defines ``encode``: the token ids of a row, of which long texts are cut, as by ``Prompt``.

    It makes the tokens of a text and of the words around it apart, and stands on ``card`` and ``tokens``.
    """
    texts = [part for part in prompt.parts if part.kind in {"text", "pair"}]
    names = {"text": "text"} if len(texts) == 1 else {"text": "text_a", "pair": "text_b"}
    read = [_read(part, names[part.kind], prompt.task.lower) for part in texts]
    cut = CUT_ONE if len(texts) == 1 else CUT_TWO
    return ENCODE.format(given=", ".join(names.values()), cut=cut.format(*read))


def pieces_around(prompt: Prompt) -> list[list[int]]:
    """The token ids before, between and after the texts."""
    pieces = [[prompt.start]]
    for place, part in enumerate(prompt.parts):
        if part.kind in {"text", "pair"}:
            pieces.append([])
        else:
            pieces[-1] += [prompt.tokenizer.mask_token_id] if part.kind == "mask" else prompt.fixed[place]
    pieces[-1].append(prompt.end)
    return pieces


def _by_prompt(prompt: Prompt, name: str, said: str = "") -> str:
    return encoding(prompt) + PROMPT.format(name=name, said=said)


def _by_text(task: Task, face: TextFace, card: str, name: str, said: str = "") -> str:
    """Reads a text as ``TextFace`` does, and scores it as ``Prototypes`` does."""
    pooled = POOLED[face.pooling.mode]
    pooled = f"F.normalize({pooled}, dim=-1)" if face.pooling.normalised else pooled
    of_one = FEATURES_OF_PARTS if face.middle else FEATURES_OF_ONE
    return TEXT.format(
        card=card, name=name, said=said, text="text.lower()" if face.pooling.lower else "text",
        pooled=(OF_LAST_AND_MIDDLE if face.middle else OF_LAST).format(pooled=pooled),
        features=FEATURES_OF_TWO if task.is_pair else of_one,
    )  # fmt: skip


def _encoder(face: TextFace, folder: str) -> str:
    # Where a family has a pooler, none was saved, and drawing one at random would be warned of.
    has_pooler = "add_pooling_layer" in inspect.signature(type(face.encoder).__init__).parameters
    without = ", add_pooling_layer=False" if has_pooler else ""
    return ENCODER.format(folder=folder, without=without, file=VECTORS if folder == "." else f"{folder}/{VECTORS}")


def classification(task: Task) -> str:
    """README code that defines ``classify``, the likeliest labels of rows, and prints that of one."""
    return CLASSIFY.format(example='("a text", "another text")' if task.is_pair else '("a text",)')


def _read(part: Part, name: str, lower: bool) -> str:
    """The expression for what is tokenised of the text called ``name``."""
    changed = MODIFIED[part.modifier].format(name)
    changed = f"({changed}).lower()" if lower else changed
    return f"{part.value!r} + {changed}" if part.value else changed
