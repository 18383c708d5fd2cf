"""The formulas, one a file; they know nothing of the rest.

reweight.py      meta weights: three engines, one signature
tape.py          per-example gradients without a second-order graph
soft_labels.py   soft pseudo labels and the class prior that they are held at
label_vectors.py label vectors from labels, names and a pool, weighed by held-out rows
information.py   what a pool tells of classes: linear maps refined on it
mixture.py       several views as one: temperatures, and how far each is believed
estimate.py      accuracy and temperature of a model, from labelled rows held out
curve.py         what more labels would bring, from subsets of the labelled rows
drift.py         do new texts differ from old ones by more than chance
gate.py          may a student replace its teacher
metrics.py       accuracy, calibration, agreement, how weights are spread
sampling.py      seeds, and which rows each step sees
"""
