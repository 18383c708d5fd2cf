"""The rounds: how teachers and students are trained, judged and promoted.

rounds.py     the four steps of a round; each finds its work done, or does it
label_vectors.py  the teacher of the text view
adoption.py   what a continued run takes over
committee.py  how far each view is believed, and what they say together
estimate.py   how often the final model is right, and how sure it may be, by labelled rows held out
baselines.py  what people would use instead, on the same sentence embeddings
trainer.py    one loop for teacher and student
models.py     a run's models: recipe, training that survives a kill, what is kept
review.py     rows to ask a person about, and what corrections do
auxiliary.py  a masked-LM loss beside that of the labels
predictions.py  a label for every unlabelled row, by the final model
plan.py       a dry run
"""
