"""Which prior answers for which ground truth."""
