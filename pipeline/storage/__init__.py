"""What lies on disk, and that it can be trusted.

checkpoint.py     folders that appear whole, manifests that verify, one writer
run_folder.py     the layout of a run, said once
pseudo_labels.py  pseudo labels and meta weights as Parquet
review.py         a review on disk: asked, answered, over (no torch)
lineage.py        what runs that go on from one another reached (no torch)
retention.py      what a finished run can lose: what `gc` deletes
markdown.py       text from anywhere, in a document that is drawn
"""
