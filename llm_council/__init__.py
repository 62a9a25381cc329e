"""Convene several language models on one task."""
