"""A finished model as ONNX graphs, and code for them that needs no torch.

installed.py  what must be installed for it
graphs.py     a view as modules: token ids in, class logits out
written.py    such a module as a file, held against the view that it was made of
folder.py     the folder of a view, and of two: graphs, tokenizers, cards
readme.py     README code over these files
"""
