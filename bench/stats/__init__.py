"""Statistics of tables: summaries, intervals, paired comparisons and costs to a target. Never imports torch."""
