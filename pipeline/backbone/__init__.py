"""The frozen language model, and what it reads.

backbone.py     one masked LM for all classifiers of a run; its identity
pretrained.py   what a backbone's name means: minilm, a folder, a hub id
families.py     where BERT, RoBERTa, DeBERTa, ... keep their parts
layers.py       the layers below, the layers above, the last one at the mask alone, attention written out
masked_lm.py    hide tokens and guess them
placement.py    where pseudo tokens stand in a template
prompt.py       a task bound to a tokenizer: texts become ids with one mask
pooling.py      how tokens become one vector, as the makers of an encoder say
text_face.py    the sentence embedding of the bare text
sentences.py    vectors of a whole set of texts: computed once, memory-mapped
batch.py        encoded texts, and padded batches of them
cache.py        tokens and frozen features: computed once a text, memory-mapped
"""
