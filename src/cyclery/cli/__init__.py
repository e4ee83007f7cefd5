"""The command line: ``main`` parses and runs; each other file holds a group of commands.

A group's ``register`` says which arguments each of its commands takes, and stands above the
functions that run them. These import what they need when they are called, so that ``--help`` and
a mistyped option answer at once.
"""
