"""What the process imports that others are forked from (forks.py); it computes nothing and starts no thread of Python.

Without the libraries that are imported late each fork would wait for them by itself.
"""

from importlib import import_module

import garbage

from listflow.flows.cli.console import prepare

OURS = (
    "flows.cli.main", "flows.cli.run", "flows.labelling.flow", "flows.run.deployment", "flows.run.self_training",
    "pipeline.results.label_worker", "pipeline.results.predictors", "pipeline.self_training",
)  # fmt: skip
LATE = (
    "distributed.nanny", "matplotlib.backends.backend_agg", "prefect_dask", "pyarrow.dataset", "pyarrow.parquet",
    "safetensors.torch", "sklearn.metrics",
    "transformers.models.bert.modeling_bert", "transformers.models.auto.tokenization_auto",
)  # fmt: skip

prepare()
for name in (*(f"listflow.{ours}" for ours in OURS), *LATE):
    import_module(name)
import_module("torch").set_num_threads(2)  # as a process has them by itself on a machine of two cores
garbage.look_seldom()
