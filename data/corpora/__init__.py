"""A corpus that grows: texts that come in, and which came before. Its shards and its manifest: data/shards.py.

text_index.py   which texts a corpus has had, or may never have
ingest.py       adding texts to a corpus: all of a call or nothing
"""
