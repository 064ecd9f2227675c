"""The GPU suite: phases in processes of their own, a record, targets. See ``gpu_suite.py``."""
