"""How the layers of a language model are run where something is trained.

attention.py  self-attention written out, which stages add to; the last layer at the mask alone
seats.py      where the tokens of a batch are once padding is left out
in_a_row.py   the layers on the tokens of all texts in a row
dropout.py    dropout that draws its masks faster
"""
