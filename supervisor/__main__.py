"""`python -m supervisor` is the console script `hashee-agent`."""

from supervisor.cli import main

if __name__ == "__main__":
    main()
