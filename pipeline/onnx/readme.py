"""What a folder with graphs says of itself: its card (listflow.json), and README code for onnxruntime and tokenizers.

The graph of a view gives class logits of token ids; the code makes the ids as ``Prompt`` or ``TextFace`` does, and
mixes two views as ``Committee`` does.
"""

from __future__ import annotations

from typing import Any

from listflow.data.task import Task
from listflow.pipeline.backbone.prompt import Prompt
from listflow.pipeline.backbone.text_face import TextFace
from listflow.pipeline.model import plain as transformers_form
from listflow.pipeline.model.label_names import label_words
from listflow.pipeline.model.plain import AS_PROMPT, AS_TEXT, CARD, OPENED, classification, encoding, pieces_around
from listflow.pipeline.storage.markdown import plain

GRAPH = "model.onnx"
IMPORTS = "import json\n\nimport numpy as np\nimport onnxruntime\n{tokenizer}\n\n"
FAST_IMPORT, SLOW_IMPORT = "from tokenizers import Tokenizer", "from transformers import AutoTokenizer"
FAST = """\
tokenizer = Tokenizer.from_file("{folder}tokenizer.json")
tokenizer.no_truncation()
tokenizer.no_padding()
tokenizer.encode_special_tokens = True  # a text that spells a special token stays text
"""
SLOW = 'tokenizer = AutoTokenizer.from_pretrained("{folder}")\n'
MODEL = '{name} = onnxruntime.InferenceSession("{folder}{file}", providers=["CPUExecutionProvider"])\n'
FAST_TOKENS = """

def tokens(text):
    return tokenizer.encode(text, add_special_tokens=False).ids
"""
RUN = """

def run(model, *texts):
    found = []
    for start in range(0, len(texts[0]), 32):
        given = {}
        for prefix, rows in zip(("", "second_"), texts):
            rows = rows[start : start + 32]
            width = max(map(len, rows))
            ids = [row + [card["pad_id"]] * (width - len(row)) for row in rows]
            seen = [[1] * len(row) + [0] * (width - len(row)) for row in rows]
            given[prefix + "input_ids"] = np.array(ids, dtype=np.int64)
            given[prefix + "attention_mask"] = np.array(seen, dtype=np.int64)
        found += model.run(None, given)
    return np.concatenate(found)


def log_softmax(logits):
    logits = logits - logits.max(-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))
"""
BY_PROMPT = """

def by_prompt(rows):
    return run({model}, [encode(*row) for row in rows])
"""
BY_TEXT = """

def embedded(text):
    return [{card}["first_id"], *tokens({card}["pooling"]["prefix"] + {text})[: {card}["room"]], {card}["last_id"]]


def by_text(rows):
    return run({model}, *([embedded(text) for text in texts] for texts in zip(*rows)))
"""
ALONE = """

def probabilities(rows):
    return np.exp(log_softmax({said}(rows)))
"""
MIXED = """

def probabilities(rows):
    said = zip(views, [by_prompt(rows), by_text(rows)])
    mixed = sum(view["weight"] * log_softmax(logits / view["temperature"]) for view, logits in said)
    return np.exp(log_softmax(mixed))
"""
OF_PROMPT = (
    f"A text classifier as an ONNX graph ({GRAPH}): the class logits of a text under a prompt.\n"
    "listflow.json holds the labels, their words and the prompt."
)
OF_TEXT = f"A text classifier as an ONNX graph ({GRAPH}): the class logits of a text.\nlistflow.json holds the labels."
OF_BOTH = (
    "A text classifier of two views, an ONNX graph each: of a text under a prompt (folder prompt), and of the bare\n"
    "text (folder text). listflow.json says how far each is believed."
)


def prompt_card(prompt: Prompt) -> dict[str, Any]:
    """listflow.json: the labels in the order of the logits with their words, and the prompt around a text as ids."""
    task = prompt.task
    words = zip(task.labels, label_words(task, prompt.tokenizer), strict=True)
    return {
        "format": 1,
        "task": task.name,
        "template": task.template,
        "lower": task.lower,
        "max_length": prompt.max_length,
        "labels": [{"label": label, "word": word} for label, word in words],
        "pieces": pieces_around(prompt),
        "room": prompt.budget,
        "pad_id": prompt.tokenizer.pad_token_id,
    }


def text_card(task: Task, face: TextFace) -> dict[str, Any]:
    """listflow.json: the labels in the order of the logits, what stands around a text and how much of it is read."""
    tokenizer = face.tokenizer
    ids = {"first_id": tokenizer.cls_token_id, "last_id": tokenizer.sep_token_id, "pad_id": tokenizer.pad_token_id}
    return {**transformers_form.text_card(task, face), **ids}


def prompt_readme(prompt: Prompt) -> str:
    """README.md of a folder with the graph of a prompt; it defines ``probabilities`` and ``classify`` of rows."""
    code = _opened(prompt.tokenizer, "card", CARD) + MODEL.format(name="model", folder="", file=GRAPH)
    code += _tokens(prompt.tokenizer) + RUN + _by_prompt(prompt, "model") + ALONE.format(said="by_prompt")
    return _readme(prompt.task, OF_PROMPT, code)


def text_readme(task: Task, face: TextFace) -> str:
    """README.md of a folder with the graph of bare texts; it defines the same two functions."""
    code = _opened(face.tokenizer, "card", CARD) + MODEL.format(name="model", folder="", file=GRAPH)
    code += _tokens(face.tokenizer) + RUN + _by_text(face, "model", "card") + ALONE.format(said="by_text")
    return _readme(task, OF_TEXT, code)


def readme_of_both(prompt: Prompt, face: TextFace) -> str:
    """README.md of a folder with both in folders of their own; it defines the same two functions."""
    code = _opened(prompt.tokenizer, "views", CARD, f"{AS_PROMPT}/").replace(".load(file)", '.load(file)["views"]')
    for name, model, view in (("card", "prompt_model", AS_PROMPT), ("bare", "text_model", AS_TEXT)):
        code += OPENED.format(file=f"{view}/{CARD}", name=name)
        code += MODEL.format(name=model, folder=f"{view}/", file=GRAPH)
    code += _tokens(prompt.tokenizer) + RUN + _by_prompt(prompt, "prompt_model") + _by_text(face, "text_model", "bare")
    return _readme(prompt.task, OF_BOTH, code + MIXED)


def _readme(task: Task, words: str, code: str) -> str:
    tokenizers = "transformers" if SLOW_IMPORT in code else "tokenizers"
    needed = f"`pip install onnxruntime {tokenizers}` is all that it needs."
    return transformers_form.README.format(
        name=plain(task.name), words=f"{words}\n{needed}", code=code + classification(task)
    )


def _opened(tokenizer: Any, name: str, card: str, folder: str = "") -> str:
    own, imported = (FAST, FAST_IMPORT) if tokenizer.is_fast else (SLOW, SLOW_IMPORT)
    code = IMPORTS.format(tokenizer=imported) + OPENED.format(file=card, name=name)
    return code + own.format(folder=folder or ("" if tokenizer.is_fast else "."))


def _tokens(tokenizer: Any) -> str:
    return FAST_TOKENS if tokenizer.is_fast else transformers_form.TOKENS


def _by_prompt(prompt: Prompt, model: str) -> str:
    return encoding(prompt) + BY_PROMPT.format(model=model)


def _by_text(face: TextFace, model: str, card: str) -> str:
    return BY_TEXT.format(model=model, card=card, text="text.lower()" if face.pooling.lower else "text")
