"""General helpers: atomic files, limits, nested structures, image grids, plots."""
