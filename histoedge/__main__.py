"""``python -m histoedge``."""

from histoedge.cli import main

if __name__ == "__main__":
    main()
