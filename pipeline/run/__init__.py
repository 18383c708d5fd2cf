"""One run: what is asked, what is fed, what it stands on.

config.py         RunConfig, presets, what lies over what (no torch)
wording.py        the names of what was trained, and figures as people read them (no torch)
sources.py        which task and which files a configuration means
review.py         a review on disk: asked, answered, over (no torch)
continuation.py   the finished run that another one goes on from
run.py            an opened run
record.py         config.json, inputs.json, the fingerprint, whose folder it is
feature_cache.py  whether frozen features are kept, where, for how long
opening.py        every input checked before anything is trained
status.py         what a folder tells without opening the run (no torch)
lineage.py        runs that go on from one another
"""
