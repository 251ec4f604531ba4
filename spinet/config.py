"""Every number of an experiment, once, with its source beside it.

"§" and "Table" point into the paper; "unstated" means that the paper leaves the choice open, and the name in brackets is
the row of `docs/unstated.md` that gives the alternatives and the reason for the default.
"""
