"""The method: lite self-training (LiST, arXiv 2110.06274), without Prefect.

B batch, T tokens, D hidden, C classes, L layers, K labelled rows, in every shape below this package.

self_training.py  all rounds in one call: start reading here
estimator.py      the same as an estimator of scikit-learn
given.py          what Python code gives to a fit, as the files of a run
method/           the formulas, one a file
storage/          what lies on disk, and that it can be trusted
backbone/         the frozen language model and what it reads
layers/           how its layers are run where something is trained
stages/           what is trained inside the backbone
model/            the classifier: backbone, stages and head
run/              one run: what is asked, what is fed, what it stands on
training/         the rounds
onnx/             a finished model as ONNX graphs
results/          what comes out
pretraining/      before a run: a domain's words, a subspace of prompts
"""
