"""``python -m stylestream`` is the command ``stylestream``."""

from __future__ import annotations

from stylestream.cli import main

if __name__ == "__main__":
    main()
