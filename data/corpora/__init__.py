"""A corpus that grows: texts that come in, and which came before. Its shards and its manifest: data/shards.py.

text_index.py   which texts a corpus has had, or may never have
growth.py       what a server was told of a corpus's growth, and what not yet
ingest.py       adding texts to a corpus: all of a call or nothing
"""
