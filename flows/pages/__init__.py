"""What the Prefect pages show of a run.

artifacts.py  its pages, under keys that stay
tables.py     its tables as rows of cells
pictures.py   its plots, within a page
lineage.py    the page of runs that went on from one another
log.py        what the log of its flow run says after each stage
"""
