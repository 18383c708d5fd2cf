"""The command line: a file for each group of commands, and what all of them share.

main.py         the commands, and how an error ends one
options.py      options that commands share, and the configuration that they ask for
console.py      how a command begins, prints, counts and ends
run.py          run, resume, plan
progress.py     what these show: where a run stands, and its plan
results.py      status, report, review, gc
predict.py      predict, export
label.py        label
ingest.py       ingest
server.py       server, serve, automations
up.py           up: all of these, and the first run
pretraining.py  adapt, subspace
"""
