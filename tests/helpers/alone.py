"""What every process of the tests has in its environment: one thread, and no model hub.

Imported before torch and transformers, which read it when they are imported. Threads of a model as small as those of
the tests wait for each other: twice the time, and many times where cores are busy.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["HF_HUB_OFFLINE"] = "1"
