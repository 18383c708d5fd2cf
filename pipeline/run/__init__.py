"""One run: what is asked, what is fed, what it stands on.

config.py         RunConfig (no torch)
presets.py        presets, and what lies over what (no torch)
wording.py        the names of what was trained, and figures as people read them (no torch)
sources.py        which task and which files a configuration means
continuation.py   the finished run that another one goes on from
run.py            an opened run
record.py         config.json, inputs.json, the fingerprint, whose folder it is
views.py          the views of a run, and the text face of all its texts
feature_cache.py  whether frozen features are kept, where, for how long
opening.py        every input checked before anything is trained
status.py         what a folder tells without opening the run (no torch)
lineage.py        runs that go on from one another
"""
