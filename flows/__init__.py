"""Prefect and the command line: thin layers over the method, without tensor arithmetic.

server/     the Prefect server: who answers there, how to host one, what it is told and what it does by itself
pages/      what its pages show of a run
run/        the flow of a run, its stages and its pauses
labelling/  the flow that labels a corpus, on one machine or many
cli/        the command line
"""
