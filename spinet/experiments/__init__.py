"""§5.4 The ablations as data, and their execution: one papermill run for each row and seed.

`tables` defines the rows. `sweep` turns rows into runs; Snakemake (`Snakefile`) executes each of them by `run`.
`campaigns` groups the records of the runs by row.
"""
