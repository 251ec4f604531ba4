"""§5.4 The ablations as data, and what carries them out: one papermill run for each row and seed.

`tables` says what a row is. `sweep` makes runs of rows and has Snakemake (`Snakefile`) carry them out, each by `run`.
`campaigns` finds the records of rows again.
"""
