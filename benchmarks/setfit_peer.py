"""SetFit on the files of one draw, for benchmarks/peers.py; runs in an environment that has setfit==1.2.0.

python setfit_peer.py ENCODER LABELLED TEST      prints the labels of the test rows as one line of JSON
"""

import json
import sys
from pathlib import Path

from datasets import Dataset
from setfit import SetFitModel, Trainer, TrainingArguments


def rows_of(path):
    lines = [json.loads(line) for line in Path(path).read_text("utf-8").splitlines()]
    texts = [line["text"] if "text" in line else f"{line['text_a']} {line['text_b']}" for line in lines]
    return texts, [line["label"] for line in lines]


def main():
    encoder, labelled, test = sys.argv[1:]
    texts, labels = rows_of(labelled)
    model = SetFitModel.from_pretrained(encoder, labels=sorted(set(labels)))
    settings = TrainingArguments(batch_size=16, num_epochs=1, num_iterations=20, report_to="none", seed=1)
    Trainer(model=model, args=settings, train_dataset=Dataset.from_dict({"text": texts, "label": labels})).train()
    print(json.dumps([str(label) for label in model.predict(rows_of(test)[0])]))


main()
