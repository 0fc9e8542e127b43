"""The stages of the hot path: pure functions over batches, in the order of the modules' hops."""
