"""Layers that map each vector of a tensor to one of a finite set of codes."""
