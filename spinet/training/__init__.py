"""§5.2 Training: `step` is what an iteration computes, `processes` how many processes do it as one."""
