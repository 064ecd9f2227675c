"""The GPU suite: phases in processes of their own, one record, the goals. See ``gpu_suite.py``."""
