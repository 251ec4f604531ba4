"""§5.4 The ablations as data, and the engine that runs them: one papermill run for each experiment and seed.

`tables` says which rows there are, `settings` what a row changes, `plan` which runs that makes on a data set; `sweep`
has Snakemake (`Snakefile`) run them, each by the driver `run`.
"""
