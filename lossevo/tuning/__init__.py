"""Tuning of a loss: its learning rate and its bounded parameters, on Ray Tune."""
