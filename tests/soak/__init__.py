"""Random requests, random changes, random deaths, for as long as one likes; then everything is counted.

`make soak`, or `python -m tests.soak --seconds 600 --seed 42`.
"""
