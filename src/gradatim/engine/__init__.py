"""How a model is run over trees: cache, attention, batches, sampling, loading."""
