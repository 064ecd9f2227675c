"""Random calls against plain PyTorch in float64.

Hypothesis draws the calls and shrinks one that fails. The suite runs the same calls each time;
``VAEKERNELS_FUZZ=2000 pytest tests/fuzz`` draws that many new ones for each test and capability.
"""
