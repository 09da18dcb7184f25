"""Many simulated runs of one lab: variants of its file, seeds, workers, and what came of it.

`variants` reads what is varied. `outcome` and `summary` say what came of it, and are pure. `local_workers` (processes
of this machine) and `dask_cluster` both run `work`. `picture` shows a sweep, `cli` is the command.
"""
