"""The flow of a run: self-training as Prefect stages, and the flow that goes on from a run by itself.

self_training.py  the flow, as algorithm 1 reads
tasks.py          its stages as tasks whose cached results are believed only while their files are what they were
session.py        the run that a flow has open, and who watches it
holder.py         which flow run that is, noted in the folder, so that one that was killed is told of
naming.py         names and tags of flow runs, which tell them apart
cancellation.py   heeding a flow run that is cancelled
review.py         the pause in which a person answers, and what they see
continuation.py   the flow that a schedule or a new corpus starts
beginning.py      the flow of a run that a person starts from a form of the pages
deployment.py     these two, served from one process
"""
