"""``python -m vaekernels.cli``, as torchrun starts it: ``torchrun -m vaekernels.cli train ...``."""

from __future__ import annotations

from vaekernels.cli import main

if __name__ == "__main__":
    main()
