"""`python -m deepmac_distill` is the command `deepmac`."""

from deepmac_distill.cli import main

if __name__ == "__main__":
    main()
