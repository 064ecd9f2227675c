"""Datasets of images: the protocol, images in memory, and folders decoded batch by batch."""
