"""§5.2 Training: `loop` runs it, `step` computes one iteration, `processes` coordinates several processes."""
