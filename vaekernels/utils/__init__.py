"""Helpers that know nothing of VAEs: files, limits, nested structures, pictures."""
