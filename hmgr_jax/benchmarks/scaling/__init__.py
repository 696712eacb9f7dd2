"""The accelerator scaling benchmark: one step on 1 to N devices and processes.

``command`` reads the command line, ``grid`` says what is measured, ``children`` and ``hosts`` where
it runs, ``measure`` and ``collectives`` make a row of it, ``table`` and ``picture`` show the rows,
and ``pod`` works out on paper what they mean for a large machine.
"""
