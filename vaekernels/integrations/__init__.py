"""Models of other libraries on this package's ops."""
