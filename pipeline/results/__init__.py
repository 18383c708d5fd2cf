"""What comes out of a run, and what is done with it.

report.py        the report as values; its headline
rendering.py     the report as HTML, JSON and a table
plots.py         the report in pictures
drift.py         do the new rows look like the old ones
finished.py      what final/ holds of a run's views, and what reads it
outcome.py       final model, predictions, report
predictor.py     a finished run, opened: labels for texts and for files
predictors.py    several runs on one backbone
tables.py        labels in a file, which appears whole or not at all
labelling.py     a whole corpus labelled: what is done, what is left
label_worker.py  what a worker does with a shard
export.py        a plain transformers folder
"""
