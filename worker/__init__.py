"""When, whether and with which guarantees does a backup happen?"""
