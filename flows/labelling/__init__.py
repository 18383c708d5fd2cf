"""The flow that labels a corpus, on one machine or many.

request.py    what is asked, and why a range of it was refused
runners.py    who labels: threads, processes, a dask cluster
work_pool.py  child flows on other machines
flow.py       the flow, and how far it is
"""
