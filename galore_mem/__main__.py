"""`python -m galore_mem`, and the console script."""


def main() -> None:
    """Run the command line."""
    raise SystemExit("no command is built yet")


if __name__ == "__main__":
    main()
