"""The hands: the programs and system calls that handlers work with."""
