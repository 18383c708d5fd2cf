"""What the method eats: tasks, rows, draws, growing corpora and the pool of a run. Knows no torch and no Prefect.

errors.py       InputError, NothingNew, "did you mean"
schema.py       Section: typed values that a person writes, and how a mistake in them is told in one sentence
files.py        files that appear whole or not at all, and those of others, opened to be read
values.py       what a cell or an item says: a text, a label, or nothing
documents.py    YAML, read as it is written
template.py     the parts of a prompt template
task.py         a task: labels, label words, template, columns
formats.py      csv, tsv, jsonl, json, parquet and hub data sets, record by record
shards.py       a corpus that grows: its shards and its manifest
rows.py         rows of texts and labels from any of these sources
pool.py         the unlabelled rows of one run, as a memory-mapped table
splits.py       seeded, nested draws: K labelled rows, a sample of a stream
corpora/        adding texts to a corpus
pools/          what a run is fed, checked together
"""
