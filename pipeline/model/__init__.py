"""The classifier: backbone, stages and head in one.

config.py       what a head can be (no torch)
label_names.py  the names of labels as words, and sentences made of them
verbalizer.py   the tokens of label words, and the head that reads them at the mask
linear.py       one linear map of pooled features
ytuning.py      labels that learn to read the text
prototypes.py   label vectors on fixed features
classifier.py   the whole of it, its logits, and its form without what it was trained through
committee.py    what is shipped: one classifier, or two views mixed
unpadded.py     a finished model's frozen layers without what stands in for the end of shorter texts
arithmetic.py   how these layers are multiplied: as they are, packed, in 8 bits
merge.py        trained parts merged into plain weights
plain.py        what an exported model says of itself: its cards and the code of its README
"""
