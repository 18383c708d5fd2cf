"""What is trained before a run: a domain's words, and a subspace of prompts.

adapt.py            continued masked-LM training
learner.py          what of a backbone is trained, at what rate, and how it is kept
packing.py          any amount of text in sequences of equal length
steps.py            warm-up, decay, and a file to go on from
msf.py              multi-task subspace finding
prompted_tasks.py   finished runs as intrinsic prompt tuning sees them
subspace.py         `listflow subspace`, and the five settings that say how good it is
"""
