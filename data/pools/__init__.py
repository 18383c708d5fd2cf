"""What a run is fed: its rows, checked together, and the pool of unlabelled ones that its rounds read.

inputs.py   labelled rows, test rows and the pool, checked together
record.py   the pool in the folder of a run, and what is written down of it
sample.py   all unlabelled rows, or a seeded sample of them
"""
